// Two charts of an hour, drawn as SVG to the size that there is: stacked bars, and lines on a scale of powers.
import { clock, duration, ended, number } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 54, RIGHT = 8, TOP = 10, BOTTOM = 24;
const PARTS = ["completed", "failed", "cancelled"];
const LINES = ["p50", "p95", "p99"];

const svg = (name, more, ...inside) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(more)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
};

// a round number of at most `most` steps up to at least `top`
const ticks = (top, most = 4) => {
  const rough = Math.max(top, 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
  return Array.from({ length: Math.ceil(Math.max(top, 1) / step) + 1 }, (_, n) => n * step);
};

// draws again when its place changes size; asks for one minute by pointer or by arrow keys
class Chart {
  constructor(place, said) {
    this.place = place;
    this.said = said; // where a screen reader hears of the minute that was moved to
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.setAttribute("aria-hidden", "true");
    new ResizeObserver(() => this.draw()).observe(place);
    place.addEventListener("pointermove", (event) => this.point(this.at(event)));
    place.addEventListener("pointerleave", () => this.point(null));
    place.addEventListener("focusout", () => this.point(null));
    place.addEventListener("keydown", (event) => this.key(event));
  }

  show(window) {
    this.window = window;
    this.draw();
  }

  at(event) {
    const box = this.place.getBoundingClientRect();
    const n = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * this.window?.length);
    return n >= 0 && n < this.window?.length ? n : null;
  }

  key(event) {
    const last = this.window.length - 1;
    const now = this.pointed ?? last + 1;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.point(to === null ? null : Math.min(last, Math.max(0, to)));
    if (this.pointed !== null) this.said.textContent = this.tip.textContent.replaceAll("\n", ", ");
  }

  point(n) {
    this.pointed = n;
    if (this.svg) this.mark();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!this.window || !width) return;
    const focused = this.svg && document.activeElement === this.svg;
    Object.assign(this, { width, height, step: (width - LEFT - RIGHT) / this.window.length });
    this.over = svg("rect", { class: "at", y: TOP, height: height - TOP - BOTTOM, width: this.step, rx: 2 });
    this.svg = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": this.label() });
    this.svg.append(...this.axes(), this.over, ...this.marks());
    this.place.replaceChildren(this.svg, this.tip);
    if (focused) this.svg.focus({ preventScroll: true });
    this.mark();
  }

  mark() {
    const shown = this.pointed !== null && this.pointed !== undefined;
    this.tip.hidden = !shown;
    this.over.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    const x = this.x(this.pointed);
    this.over.setAttribute("x", x);
    this.tip.textContent = this.text(this.window[this.pointed]);
    const left = x + this.step + 8 + this.tip.offsetWidth > this.width ? x - 8 - this.tip.offsetWidth : x + this.step + 8;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${TOP}px)`;
  }

  x(n) {
    return LEFT + n * this.step;
  }

  *axes() {
    for (const { y, label, base } of this.rules()) {
      yield svg("line", { class: base ? "base" : "rule", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y });
      yield svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, label);
    }
    const every = this.width < 480 ? 20 : 10;
    for (const [n, minute] of this.window.entries()) {
      if (new Date(minute.start).getMinutes() % every) continue;
      const x = this.x(n) + this.step / 2;
      if (x > this.width - 20) continue;
      yield svg("text", { x, y: this.height - 6, "text-anchor": "middle" }, clock(minute.start));
    }
  }
}

export class Bars extends Chart {
  label() {
    const total = this.window.reduce((a, minute) => a + ended(minute), 0);
    return `Bar chart: ${number(total)} transactions ended in the last ${this.window.length} minutes. Arrow keys go through the minutes.`;
  }

  rules() {
    const found = ticks(Math.max(...this.window.map(ended)));
    this.top = found[found.length - 1];
    return found.map((value) => ({ y: this.y(value), label: number(value), base: value === 0 }));
  }

  y(value) {
    return TOP + (this.height - TOP - BOTTOM) * (1 - value / this.top);
  }

  *marks() {
    const gap = this.step > 6 ? 2 : 1;
    for (const [n, minute] of this.window.entries()) {
      let below = 0;
      for (const part of PARTS) {
        if (!minute[part]) continue;
        const height = Math.max(1, this.y(below) - this.y(below + minute[part]));
        const y = this.y(below) - height;
        yield svg("rect", { class: "bar-part", "data-series": part, x: this.x(n) + gap / 2, y, width: Math.max(1, this.step - gap), height, rx: Math.min(2, height / 2) });
        below += minute[part];
      }
    }
  }

  text(minute) {
    return [clock(minute.start), ...PARTS.map((part) => `${number(minute[part])} ${part}`)].join("\n");
  }
}

export class Lines extends Chart {
  label() {
    const last = this.window.findLast((minute) => minute.p50_ms !== null);
    const values = last ? LINES.map((line) => `${line} ${duration(last[`${line}_ms`])}`).join(", ") : "nothing ended";
    return `Line chart of latencies by minute; the latest: ${values}. Arrow keys go through the minutes.`;
  }

  rules() {
    const values = this.window.flatMap((minute) => LINES.map((line) => minute[`${line}_ms`])).filter((value) => value !== null);
    const decades = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    const low = Math.max(0, decades.findLastIndex((bound) => bound <= Math.min(...values, 10)));
    const high = decades.findIndex((bound) => bound >= Math.max(...values, 1_000));
    [this.low, this.high] = [decades[low], decades[high]];
    const label = (ms) => (ms < 1_000 ? `${ms} ms` : ms < 60_000 ? `${ms / 1_000} s` : `${Math.round(ms / 60_000)} min`);
    return decades.slice(low, high + 1).map((value) => ({ y: this.y(value), label: label(value), base: value === this.low }));
  }

  y(value) {
    const share = Math.log(value / this.low) / Math.log(this.high / this.low);
    return TOP + (this.height - TOP - BOTTOM) * (1 - Math.min(1, share));
  }

  *marks() {
    for (const line of LINES) {
      let run = [];
      const runs = [];
      for (const [n, minute] of this.window.entries()) {
        const value = minute[`${line}_ms`];
        if (value === null) run = [];
        else {
          if (!run.length) runs.push(run);
          run.push([this.x(n) + this.step / 2, this.y(value)]);
        }
      }
      for (const points of runs) {
        const [x, y] = points[points.length - 1];
        yield svg("polyline", { class: "line", "data-series": line, points: points.map((point) => point.join(",")).join(" ") });
        yield svg("circle", { class: "dot", "data-series": line, cx: x, cy: y, r: 2.5 });
      }
    }
  }

  text(minute) {
    return [clock(minute.start), ...LINES.map((line) => `${line} ${duration(minute[`${line}_ms`])}`)].join("\n");
  }
}
