"use strict";
// Shows the OpenAPI document: routes by tag, what they take and answer, and a form to try them.

const make = (name, text, more = {}) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(more)) element.setAttribute(key, value);
  return element;
};

const resolved = (schema, all, depth = 0) => {
  if (!schema || depth > 6) return {};
  if (schema.$ref) return resolved(all[schema.$ref.split("/").pop()], all, depth + 1);
  return schema;
};

const kind = (schema, all) => {
  const found = resolved(schema, all);
  if (found.enum) return found.enum.join(" | ");
  if (found.const !== undefined) return String(found.const);
  if (found.anyOf) return found.anyOf.map((one) => kind(one, all)).join(" or ");
  if (found.type === "array") return `list of ${kind(found.items, all)}`;
  return found.title && found.properties ? found.title : found.type || "any";
};

const LIMITS = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"];

const limits = (member) => [member, ...(member.anyOf || [])]
  .flatMap((one) => LIMITS.filter((key) => one[key] !== undefined).map((key) => `${key} ${one[key]}`))
  .join(", ");

const inner = (schema, all) => {
  // the object that a member is, or is a list of
  const found = resolved(schema, all);
  return found.type === "array" ? inner(found.items, all) : found;
};

const members = (schema, all, path = "") => {
  const found = resolved(schema, all);
  const rows = [];
  for (const [name, member] of Object.entries(found.properties || {})) {
    const row = make("tr");
    const needed = (found.required || []).includes(name) ? "" : "optional";
    row.append(make("td", path + name), make("td", kind(member, all)),
      make("td", [needed, limits(member), member.description].filter(Boolean).join(" · "), { class: "dim" }));
    const list = resolved(member, all).type === "array" ? "[]." : ".";
    rows.push(row, ...members(inner(member, all), all, path + name + list));
  }
  return rows;
};

const table = (schema, all) => {
  const made = make("table");
  made.append(...members(schema, all));
  return made;
};

const jsonOf = (part) => Object.values(part?.content || {})[0]?.schema;

const tryIt = (method, path, operation) => {
  const form = make("form");
  const inputs = operation.parameters.map((parameter) => {
    const label = make("label", `${parameter.name} `);
    const needed = parameter.required ? "" : ", optional";
    const input = make("input", undefined, { placeholder: parameter.in + needed });
    label.append(input);
    form.append(label, " ");
    return { ...parameter, input };
  });
  const asked = operation.requestBody;
  const body = asked ? make("textarea", asked.required ? "{}" : "", { rows: 4, placeholder: "body" }) : null;
  const output = make("pre", "");
  output.hidden = true;
  if (body) form.append(body);
  form.append(make("button", "Try it"), output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = {};
    const query = new URLSearchParams();
    let url = path;
    for (const { name, in: place, input } of inputs) {
      if (place === "path") url = url.replace(`{${name}}`, encodeURIComponent(input.value));
      else if (input.value && place === "query") query.set(name, input.value);
      else if (input.value) headers[name] = input.value;
    }
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    const sent = body?.value.trim();
    if (sent) headers["Content-Type"] = "application/json";
    const options = { method: method.toUpperCase(), headers, body: sent || undefined };
    const response = await fetch(query.size ? `${url}?${query}` : url, options);
    const text = await response.text();
    output.hidden = false;
    output.textContent = `${response.status}\n${[...response.headers].map((h) => h.join(": ")).join("\n")}\n\n${text}`;
  });
  return form;
};

const route = (method, path, operation, all) => {
  const details = make("details", undefined, { id: operation.operationId });
  const summary = make("summary");
  summary.append(make("b", method.toUpperCase(), { class: method }), make("code", path),
    make("span", operation.summary, { class: "dim" }));
  details.append(summary);
  const who = operation["x-roles"] ? operation["x-roles"].join(", ") : "no token needed";
  details.append(make("p", `Who: ${who}`, { class: "dim" }));
  const body = jsonOf(operation.requestBody);
  if (body) details.append(make("h4", "Body"), table(body, all));
  const problems = [];
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (status >= "400") {
      problems.push(status);
      continue;
    }
    const schema = jsonOf(answer);
    const type = Object.keys(answer.content || {}).filter((one) => one !== "application/json");
    details.append(make("h4", [status, answer.description, ...type].join(" · ")));
    const headers = Object.keys(answer.headers || {}).join(", ");
    if (headers) details.append(make("p", `Headers: ${headers}`, { class: "dim" }));
    if (schema) details.append(table(schema, all));
  }
  if (problems.length) {
    const line = make("p", `Problems: ${problems.join(", ")}. `, { class: "dim" });
    line.append(make("a", "Their codes", { href: "#codes" }));
    details.append(line);
  }
  details.append(tryIt(method, path, operation));
  return details;
};

const show = async () => {
  const description = await (await fetch("/api/openapi.json")).json();
  const all = description.components.schemas;
  document.getElementById("about").textContent = description.info.description;
  const main = document.getElementById("routes");
  main.replaceChildren();
  const tags = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!tags.has(tag)) {
        tags.set(tag, make("section"));
        tags.get(tag).append(make("h2", tag));
        main.append(tags.get(tag));
      }
      tags.get(tag).append(route(method, path, operation, all));
    }
  }
  const codes = document.getElementById("codes");
  for (const [code, { status, title }] of Object.entries(description["x-error-codes"])) {
    const row = make("tr", undefined, { id: code });
    row.append(make("td", code), make("td", status), make("td", title));
    codes.append(row);
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
};

show();
