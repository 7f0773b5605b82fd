// What the numbers are: windows of a minute, put together, counted and written. No page, no network.

export const MINUTES = 60;
const MINUTE_MS = 60_000;

// of a minute in which nothing ended
const nothing = (start) => ({
  start, completed: 0, failed: 0, cancelled: 0, volume: {}, revenue: {}, latencies: null, reasons: {},
  p50_ms: null, p95_ms: null, p99_ms: null,
});

export const startOf = (ms) => new Date(ms - (ms % MINUTE_MS)).toISOString().replace(/\.\d+Z$/, "Z");

// the minutes of four reports, by their start
export const ofReports = ({ volume, revenue, latency, failures }) => {
  const found = new Map();
  const at = (item) => {
    const start = startOf(Date.parse(item.start));
    if (!found.has(start)) found.set(start, nothing(start));
    return found.get(start);
  };
  for (const item of latency.items) {
    const { completed, failed, cancelled, p50_ms, p95_ms, p99_ms } = item;
    const latencies = item.buckets.map((bucket) => bucket.count);
    Object.assign(at(item), { completed, failed, cancelled, p50_ms, p95_ms, p99_ms, latencies });
  }
  for (const item of volume.items) at(item).volume[item.currency] = item.value;
  for (const item of revenue.items) at(item).revenue[item.currency] = item.value;
  for (const item of failures.items) at(item).reasons = item.reasons;
  return found;
};

// what the stream says of the last minutes is newer than all else
export const updated = (minutes, said) => {
  for (const minute of said.minutes) {
    const start = startOf(Date.parse(minute.start));
    minutes.set(start, { ...minute, start });
  }
  return minutes;
};

// the last hour to `nowMs`, a minute each, the running one last
export const hour = (minutes, nowMs) => {
  const last = nowMs - (nowMs % MINUTE_MS);
  return Array.from({ length: MINUTES }, (_, n) => {
    const start = startOf(last - (MINUTES - 1 - n) * MINUTE_MS);
    return minutes.get(start) || nothing(start);
  });
};

export const ended = (minute) => minute.completed + minute.failed + minute.cancelled;

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

const summed = (maps) => {
  const found = {};
  for (const map of maps) for (const [name, value] of Object.entries(map)) found[name] = (found[name] || 0) + value;
  return found;
};

// the bound of the bucket in which a percentile lies; null: nothing ended; Infinity: beyond the last
export const percentile = (latencies, bounds, percent) => {
  const total = sum(latencies);
  if (!total) return null;
  const rank = Math.ceil((total * percent) / 100);
  let seen = 0;
  for (const [n, count] of latencies.entries()) {
    seen += count;
    if (seen >= rank) return bounds[n] ?? Infinity;
  }
  return Infinity;
};

export const totals = (window, bounds) => {
  const latencies = [];
  for (const minute of window) for (const [n, count] of (minute.latencies || []).entries()) latencies[n] = (latencies[n] || 0) + count;
  const completed = sum(window.map((minute) => minute.completed));
  const count = sum(window.map(ended));
  const full = window.slice(0, -1);
  return {
    count, completed,
    failed: sum(window.map((minute) => minute.failed)),
    cancelled: sum(window.map((minute) => minute.cancelled)),
    success: count ? completed / count : null,
    lastMinute: ended(full[full.length - 1]),
    running: ended(window[window.length - 1]),
    mean: sum(full.map(ended)) / full.length,
    volume: summed(window.map((minute) => minute.volume)),
    revenue: summed(window.map((minute) => minute.revenue)),
    reasons: Object.entries(summed(window.map((minute) => minute.reasons))).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)),
    ...Object.fromEntries([50, 95, 99].map((percent) => [`p${percent}`, percentile(latencies, bounds, percent)])),
  };
};

// in words

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
export const number = (value) => plain.format(value);

export const percent = (value) => {
  if (value === null) return "–";
  // never 100 % while something failed
  if (value === 1) return "100 %";
  return value > 0.999 ? `${Math.floor(value * 10_000) / 100} %` : `${(100 * value).toFixed(1)} %`;
};

export const duration = (ms) => {
  if (ms === null || ms === undefined) return "–";
  if (ms === Infinity) return "> 10 min";
  if (ms < 1_000) return `≤ ${ms} ms`;
  if (ms < 60_000) return `≤ ${number(ms / 1_000)} s`;
  return `≤ ${number(ms / 60_000)} min`;
};

// minor units as an amount: digits by the currency's own number of decimals, exact whatever the size
export const amount = (minor, currency, exponents) => {
  const exponent = exponents[currency] ?? 2;
  const digits = String(Math.abs(minor)).padStart(exponent + 1, "0");
  const whole = digits.slice(0, digits.length - exponent).replace(/\B(?=(\d{3})+$)/g, ",");
  return (minor < 0 ? "−" : "") + whole + (exponent ? `.${digits.slice(-exponent)}` : "");
};

// INSUFFICIENT_FUNDS: Insufficient funds
export const words = (name) => {
  const text = String(name).replaceAll("_", " ").toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
};

export const clock = (start) => new Date(start).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
