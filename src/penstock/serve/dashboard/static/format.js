// One place for how numbers, times and names are written.
import { state } from "./state.js";

const MINUS = /^-/;
const cache = new Map();
function formatter(options) {
  const key = JSON.stringify(options);
  if (!cache.has(key)) cache.set(key, new Intl.NumberFormat(undefined, options));
  return cache.get(key);
}
const write = (value, options) => formatter(options).format(value).replace(MINUS, "−");

const ACRONYMS = { ctr: "CTR", cpc: "CPC", cpm: "CPM" };
export const title = (name) => ACRONYMS[name] ?? (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

const isShare = (column) => column.measure === "ratio" && column.type === "float" && /(^|_)(ctr|rate|ratio|share)$/.test(column.name);
const isMoney = (column) => column.type === "decimal" || (column.measure === "ratio" && /(^|_)(cost|spend|price|cp[acm])(_|$)/.test(column.name));

export function number(value, column, { compact = false } = {}) {
  if (value === null || value === undefined) return "–";
  if (column.type === "timestamp") return instant(value);
  if (typeof value !== "number") return String(value);
  if (isShare(column)) return write(value, { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const short = compact && Math.abs(value) >= 10000 ? { notation: "compact", maximumFractionDigits: 1, minimumFractionDigits: 0 } : {};
  if (isMoney(column)) return money(value, { minimumFractionDigits: 2, maximumFractionDigits: 2, ...short });
  if (column.type === "float" || column.measure === "ratio") return write(value, { maximumFractionDigits: 3, ...short });
  return write(value, { maximumFractionDigits: 0, ...short });
}

function money(value, options) {
  if (/^[A-Z]{3}$/.test(state.currency)) {
    try { return write(value, { style: "currency", currency: state.currency, ...options }); } catch { /* no currency of that name: a label */ }
  }
  return state.currency ? `${write(value, options)} ${state.currency}` : write(value, options);
}

export const percent = (value) => write(value, { style: "percent", maximumFractionDigits: 1 });
export const share = (value) => write(value, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

// In percent as the API sends it: 12.5 is 12.5 %. Good and bad have a colour where more is better: of people and events, not of costs.
export function change(value, column) {
  if (value === null || value === undefined) return null;
  return { text: write(value / 100, { style: "percent", maximumFractionDigits: Math.abs(value) < 100 ? 1 : 0, signDisplay: "exceptZero" }), coloured: ["count", "uniques"].includes(column.measure), way: value > 0.05 ? "up" : value < -0.05 ? "down" : "flat" };
}

const stamp = (text, options) => new Intl.DateTimeFormat(undefined, { timeZone: state.tz, ...options }).format(new Date(text));
export const instant = (text) => stamp(text, { dateStyle: "medium", timeStyle: "medium" });
export const clock = (text) => stamp(text, { hour: "2-digit", minute: "2-digit" });
export function window(text, interval) {
  if (/^\d+(d|w)$/.test(interval)) return stamp(text, { weekday: "short", day: "numeric", month: "short" });
  if (/mo$|y$/.test(interval)) return stamp(text, { month: "long", year: "numeric" });
  return stamp(text, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}
export const dimension = (value) => (value === null || value === "" || value === "??" ? "Unknown" : String(value));
