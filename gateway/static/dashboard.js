// The live page: signs in, asks for reports and the state of operations, follows the stream, shows.
//
//   signed out --login--> loading --reports--> live --stream ends--> lost --again, later and later--> live
//
// Tokens are held here alone, in memory. What comes from the bank is set as text, never as markup.
import { Bars, Lines } from "./charts.js";
import { amount, clock, duration, ended, hour, number, ofReports, percent, totals, updated, words } from "./figures.js";

const REPORTS = ["volume", "revenue", "latency", "failures"];
const STATUS_MS = 10_000;
const SILENT_MS = 35_000; // the stream says every 15 s at least that it is there
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const REFRESH_BEFORE_S = 60;

const $ = (id) => document.getElementById(id);
const make = (name, text, more = {}) => {
  const element = document.createElement(name);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(more)) element.setAttribute(key, value);
  return element;
};
const wait = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
});

// -- who is signed in

class Refused extends Error {
  constructor(status, problem, retryS) {
    super(problem?.detail || problem?.title || `the bank answered ${status}`);
    Object.assign(this, { status, code: problem?.code, retryS });
  }
}

let session = null; // {access, refresh, email, timer, renewing, ending: AbortController}

// the bank's time: this machine's clock may be wrong
let skewMs = 0;
const now = () => Date.now() + skewMs;
const timed = (response) => {
  const said = Date.parse(response.headers.get("Date"));
  if (said) skewMs = said - Date.now();
  return response;
};

const post = async (path, body) => {
  const response = timed(await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
};

const refusal = async (response) => {
  const problem = await response.json().catch(() => null);
  return new Refused(response.status, problem, Number(response.headers.get("Retry-After")) || null);
};

const keep = (current, tokens) => {
  current.access = tokens.access_token;
  current.refresh = tokens.refresh_token;
  clearTimeout(current.timer);
  const inS = Math.max(5, tokens.expires_in - REFRESH_BEFORE_S);
  current.timer = setTimeout(() => renew(current).catch(() => {}), inS * 1_000);
};

// new tokens; those who ask at once share them
const renew = (current) => {
  current.renewing ||= post("/api/auth/refresh", { refresh_token: current.refresh })
    .then((tokens) => keep(current, tokens))
    .catch((error) => {
      const over = error instanceof Refused && error.status === 401;
      if (over && session === current) leave("Your session has ended. Sign in again.");
      throw error;
    })
    .finally(() => { current.renewing = null; });
  return current.renewing;
};

// a request with the token; renewed once when the bank takes it no more
const ask = async (current, path, more = {}) => {
  const once = () => fetch(path, { ...more, headers: { ...more.headers, Authorization: `Bearer ${current.access}` } });
  let response = await once();
  if (response.status === 401) {
    await renew(current);
    response = await once();
  }
  timed(response);
  if (!response.ok) throw await refusal(response);
  return response;
};

const get = async (current, path) => (await ask(current, path, { signal: current.ending.signal })).json();

const leave = (why) => {
  if (!session) return;
  clearTimeout(session.timer);
  session.ending.abort();
  session = null;
  $("board").hidden = $("who").hidden = true;
  $("sign-in").hidden = false;
  $("password").value = "";
  say($("login-error"), why);
  $(why ? "password" : "email").focus();
};

const say = (place, text) => {
  place.hidden = !text;
  place.textContent = text || "";
};

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const email = $("email").value.trim();
  const password = $("password").value;
  say($("login-error"), "");
  if (!email || !password) {
    say($("login-error"), "Enter your e-mail and your password.");
    (email ? $("password") : $("email")).focus();
    return;
  }
  $("enter").disabled = true;
  $("enter").textContent = "Signing in…";
  const current = { email, ending: new AbortController() };
  try {
    const tokens = await post("/api/auth/login", { email, password });
    keep(current, tokens);
    await enter(current, tokens.user_id);
  } catch (error) {
    clearTimeout(current.timer);
    say($("login-error"), sentence(error));
    $("password").select();
  } finally {
    $("enter").disabled = false;
    $("enter").textContent = "Sign in";
  }
});

const sentence = (error) => {
  if (!(error instanceof Refused)) return "The bank can't be reached. Try again.";
  if (error.status === 401) return "E-mail or password is wrong.";
  if (error.status === 403) return "Your roles may see neither figures nor operations. Ask an administrator.";
  if (error.status === 429) return `Too many tries. Wait ${error.retryS ? `${error.retryS} s` : "a while"} and try again.`;
  if (error.status === 422 || error.status === 400) return "That is no e-mail and password.";
  return "The bank can't answer just now. Try again.";
};

$("logout").addEventListener("click", async () => {
  const refresh_token = session?.refresh;
  leave("");
  await post("/api/auth/logout", { refresh_token }).catch(() => {}); // it expires by itself
});

// -- what may be seen, and following it

const allowed = async (asked) => {
  try {
    return { value: await asked, may: true };
  } catch (error) {
    if (error instanceof Refused && error.status === 403) return { may: false, error };
    if (error instanceof Refused && error.status !== 503) throw error;
    return { may: true, error }; // it does not answer yet: asked again
  }
};

const enter = async (current, userId) => {
  const [figures, operations] = await Promise.all([allowed(reports(current)), allowed(get(current, "/api/status"))]);
  if (!figures.may && !operations.may) {
    post("/api/auth/logout", { refresh_token: current.refresh }).catch(() => {});
    throw figures.error;
  }
  session = current;
  $("sign-in").hidden = true;
  $("board").hidden = $("who").hidden = false;
  $("password").value = "";
  $("user").textContent = current.email;
  get(current, `/api/users/${encodeURIComponent(userId)}`)
    .then((user) => { $("user").textContent = user.name || current.email; })
    .catch(() => {}); // the e-mail stands there
  $("figures").hidden = !figures.may;
  $("operations").hidden = !operations.may;
  $("main").focus({ preventScroll: true });
  window.scrollTo(0, 0);
  if (figures.may) {
    loading();
    if (figures.value) take(figures.value);
    follow(current, Boolean(figures.value));
  } else connection("off", "Operations only");
  if (operations.may) {
    if (operations.value) showStatus(operations.value);
    watch(current);
  }
};

let exponents = null;

const reports = async (current) => {
  exponents ||= await (await fetch("/dashboard/currencies.json")).json();
  const from = new Date(now() - 60 * 60_000).toISOString();
  const asked = REPORTS.map((metric) => get(current, `/api/analytics/reports?metric=${metric}&interval=minute&from=${from}`));
  const answers = await Promise.all(asked);
  return Object.fromEntries(REPORTS.map((metric, n) => [metric, answers[n]]));
};

// stream after stream, until the session ends; after each gap the hour is asked for again
const follow = async (current, known) => {
  const { signal } = current.ending;
  let tries = 0;
  while (!signal.aborted) {
    let told = 0; // by the bank, when to ask again
    try {
      if (!known) take(await reports(current));
      known = false;
      await stream(current, (said) => {
        if (tries) $("said").textContent = "Live again.";
        tries = 0;
        connection("live", "Live");
        say($("lost"), "");
        updated(board.minutes, said);
        show();
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 403) {
        leave("Your roles have changed. Sign in again.");
        return;
      }
      if (error instanceof Refused && error.retryS) told = error.retryS * 1_000;
    }
    if (signal.aborted) return;
    const ms = told || RETRY_MS[Math.min(tries, RETRY_MS.length - 1)];
    tries += 1;
    connection("lost", "Connection lost");
    say($("lost"), `The connection to the bank is lost: these figures are ${board.at ? `of ${clockOf(board.at)}` : "not there yet"}. Trying again…`);
    await wait(ms, signal);
  }
};

// server-sent events over fetch, which takes a header where EventSource does not; ends by throwing
const stream = async (current, heard) => {
  const ending = new AbortController();
  const end = () => ending.abort();
  current.ending.signal.addEventListener("abort", end);
  let timer = setTimeout(end, SILENT_MS);
  try {
    const response = await ask(current, "/api/analytics/stream", { signal: ending.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      clearTimeout(timer);
      if (done) throw new Error("the stream ended");
      timer = setTimeout(end, SILENT_MS);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (data.length) heard(JSON.parse(data.join("\n")));
      }
    }
  } finally {
    clearTimeout(timer);
    current.ending.signal.removeEventListener("abort", end);
    ending.abort();
  }
};

const watch = async (current) => {
  const { signal } = current.ending;
  let ms = STATUS_MS;
  for (;;) {
    await wait(ms, signal);
    if (signal.aborted) return;
    ms = STATUS_MS;
    try {
      showStatus(await get(current, "/api/status"));
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.retryS) ms = error.retryS * 1_000;
      $("operations").classList.add("stale");
      $("operations-note").textContent = status.at ? `no answer; as of ${clockOf(Date.parse(status.at))}` : "no answer yet";
      if ($("figures").hidden) connection("lost", "Connection lost");
    }
  }
};

const connection = (state, text) => {
  $("live").dataset.state = state;
  if ($("live-text").textContent !== text) $("live-text").textContent = text;
};

const clockOf = (ms) => new Date(ms).toLocaleTimeString("en-GB");

// -- figures

const board = { minutes: new Map(), bounds: [], at: 0 };
const bars = new Bars($("rate-chart"), $("said"));
const lines = new Lines($("latency-chart"), $("said"));

const loading = () => {
  Object.assign(board, { minutes: new Map(), bounds: [], at: 0 });
  connection("connecting", "Connecting…");
  say($("lost"), "");
  for (const id of ["rate-chart", "latency-chart", "failures", "money"]) $(id).replaceChildren(make("div", undefined, { class: "skeleton" }));
  for (const id of ["rate", "count", "success", "latency"]) tile(id, "–", "\u00a0");
};

const take = (given) => {
  board.minutes = ofReports(given);
  const item = given.latency.items[0];
  if (item) board.bounds = item.buckets.map((bucket) => bucket.up_to_ms ?? Infinity);
  show();
};

const tile = (id, text, note, tone = "", unit = "") => {
  const place = $(id);
  if (place.textContent !== text + unit) {
    place.replaceChildren(text);
    if (unit) place.append(make("small", unit));
  }
  place.dataset.tone = tone;
  $(`${id}-note`).textContent = note;
};

const show = () => {
  board.at = Date.now();
  const window = hour(board.minutes, now());
  const bounds = board.bounds.length ? board.bounds : BOUNDS;
  const all = totals(window, bounds);
  tile("rate", number(all.lastMinute), `last full minute · ${number(all.running)} so far in this one`);
  tile("count", number(all.count), `${number(all.completed)} completed · ${number(all.failed)} failed · ${number(all.cancelled)} cancelled`);
  const tone = all.success === null ? "" : all.success < 0.9 ? "bad" : all.success < 0.97 ? "warn" : "";
  tile("success", percent(all.success), all.count ? `${number(all.completed)} of ${number(all.count)}` : "nothing ended", tone);
  tile("latency", duration(all.p95), all.completed ? `p50 ${duration(all.p50)} · p99 ${duration(all.p99)}` : "nothing completed");
  if (all.count) {
    bars.show(window);
    lines.show(window);
  } else {
    for (const chart of [bars, lines]) {
      chart.window = null;
      chart.place.replaceChildren(empty("Nothing ended in the last 60 minutes.", "It will show here as it happens."));
    }
  }
  $("rate-table").replaceChildren(minuteTable(window));
  $("failures").replaceChildren(failures(all));
  $("money").replaceChildren(money(all));
};

// of a bank in which nothing has ended yet: the same as in every report
const BOUNDS = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000, Infinity];

const empty = (title, more) => {
  const made = make("div", undefined, { class: "empty" });
  made.append(make("b", title), make("span", more));
  return made;
};

const table = (heads, rows) => {
  const made = make("table");
  const head = make("tr");
  for (const { text, right } of heads) head.append(make("th", text, { scope: "col", class: right ? "right" : "" }));
  const body = make("tbody");
  for (const cells of rows) {
    const row = make("tr");
    for (const [n, cell] of cells.entries()) {
      const made = make(n ? "td" : "th", undefined, { class: heads[n].right ? "right" : "", ...(n ? {} : { scope: "row" }) });
      made.append(cell ?? "");
      row.append(made);
    }
    body.append(row);
  }
  const header = make("thead");
  header.append(head);
  made.append(header, body);
  return made;
};

const minuteTable = (window) => {
  const heads = [{ text: "Minute" }, ...["Completed", "Failed", "Cancelled", "p95"].map((text) => ({ text, right: true }))];
  const rows = window.filter(ended).reverse().map((minute) =>
    [clock(minute.start), number(minute.completed), number(minute.failed), number(minute.cancelled), duration(minute.p95_ms)]);
  return rows.length ? table(heads, rows) : empty("Nothing ended.", "");
};

const failures = ({ reasons, failed }) => {
  if (!failed) return empty("None failed.", "In the last 60 minutes.");
  const list = make("ul", undefined, { class: "reasons" });
  for (const [reason, count] of reasons.slice(0, 8)) {
    const item = make("li");
    const meter = make("span", undefined, { class: "meter", "aria-hidden": "true" });
    const filled = make("i");
    filled.style.width = `${(100 * count) / reasons[0][1]}%`;
    meter.append(filled);
    item.append(make("span", words(reason), { class: "name", title: reason }), make("span", number(count), { class: "value" }), meter);
    list.append(item);
  }
  const rest = reasons.slice(8).reduce((a, [, count]) => a + count, 0);
  if (rest) list.append(make("li", `and ${number(rest)} for other reasons`, { class: "dim" }));
  return list;
};

const money = ({ volume, revenue }) => {
  const currencies = [...new Set([...Object.keys(volume), ...Object.keys(revenue)])].filter((one) => volume[one] || revenue[one]).sort();
  if (!currencies.length) return empty("No money moved.", "In the last 60 minutes.");
  const heads = [{ text: "Currency" }, { text: "Volume", right: true }, { text: "Revenue", right: true }];
  const made = (map) => (one) => amount(map[one] || 0, one, exponents);
  return table(heads, currencies.map((one) => [one, made(volume)(one), made(revenue)(one)]));
};

// -- operations

let status = { at: null };
const TONES = { up: "ok", closed: "ok", late: "warn", degraded: "warn", half_open: "warn", down: "bad", open: "bad" };
const badge = (state) => make("span", words(state), { class: "state", "data-tone": TONES[state] || "warn" });

const STORES = { mysql: "MySQL", mongodb: "MongoDB" };
const part = (one) => {
  const item = make("li", undefined, { class: "card part", "data-part": one.name });
  const facts = [
    one.partitions ? `${one.held} of ${one.partitions} partitions` : null,
    one.behind_s === undefined || one.behind_s === null ? null : `${number(one.behind_s)} s behind`,
    one.lag === null ? null : one.lag ? `${number(one.lag)} behind` : "nothing waits",
  ];
  item.append(make("h3", STORES[one.name] || words(one.name)), badge(one.state), make("p", facts.filter(Boolean).join(" · ") || (one.state === "up" ? "all checks pass" : "\u00a0"), { class: "dim" }));
  if (one.detail) item.append(make("p", one.detail, { class: "remark", "data-tone": TONES[one.state] || "warn" }));
  return item;
};

const showStatus = (given) => {
  status = given;
  $("operations").classList.remove("stale");
  $("operations-note").textContent = `as of ${clockOf(Date.parse(given.at))}`;
  if ($("figures").hidden) connection("live", "Live");
  const all = [
    ...given.services.map((one) => ({ name: one.service, ...one })),
    ...given.stores.map((one) => ({ name: one.store, lag: null, detail: one.behind_s === null ? "does not answer" : null, ...one })),
    { name: "gateway", lag: null, state: given.gateway.state, detail: Object.entries(given.gateway.checks).filter(([, text]) => text !== "ok").map(([name, text]) => `${name}: ${text}`).join("; ") || null },
  ];
  const bad = all.filter((one) => one.state !== "up");
  const tone = all.some((one) => one.state === "down") ? "bad" : bad.length ? "warn" : "";
  const shown = bad.slice(0, 3).map((one) => `${one.name} ${words(one.state).toLowerCase()}`).join(", ");
  tile("services-up", number(all.length - bad.length), shown || "all work", tone, ` of ${all.length} up`);
  const reviews = given.reviews;
  tile("reviews", reviews ? `${number(reviews.open)}${reviews.more ? "+" : ""}` : "–", reviews ? (reviews.open ? "wait for a decision" : "nothing waits") : "risk does not answer", reviews?.open ? "warn" : "");
  const open = given.breakers.filter((one) => one.state !== "closed");
  const names = open.map((one) => `${one.downstream} ${words(one.state).toLowerCase()}`).join(", ");
  tile("breakers", number(open.length), names || (given.breakers.length ? `${given.breakers.length} closed` : "none was needed yet"), open.length ? "bad" : "");
  const imbalance = given.ledger_imbalance;
  tile("ledger", imbalance === null ? "–" : imbalance ? "Off" : "Balanced", imbalance === null ? "no worker answers" : imbalance ? "postings do not sum to zero: run verify" : "postings sum to zero", imbalance ? "bad" : "");
  // what needs a look stands first
  all.sort((a, b) => (a.state === "up") - (b.state === "up"));
  $("services").replaceChildren(...all.map(part));
};

$("email").focus();
