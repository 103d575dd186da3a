// What the page shows, all of it in the address: a link opens the same view.
const DEFAULTS = { rollup: "", entity: "", range: "last_7d", start: "", end: "", tz: "", interval: "", measure: "", compare: "1", by: "", sort: "", currency: "" };

export const RANGES = [
  ["last_60m", "Last 60 minutes"], ["last_24h", "Last 24 hours"], ["today", "Today"], ["yesterday", "Yesterday"], ["last_7d", "Last 7 days"],
  ["last_30d", "Last 30 days"], ["this_month", "This month"], ["previous_1mo", "Last month"], ["last_90d", "Last 90 days"], ["custom", "Dates…"],
];
export const INTERVALS = [["", "Automatic"], ["1m", "Minutes"], ["1h", "Hours"], ["1d", "Days"], ["1w", "Weeks"], ["1mo", "Months"]];
const DAY = 86400000;

export const state = { ...DEFAULTS };
export const chosen = { tz: false }; // whether somebody chose the zone: a link or the picker, and not the browser

export function read() {
  const given = new URLSearchParams(location.search);
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
  chosen.tz = Boolean(state.tz);
  state.tz ||= Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

export function write(change = {}) {
  Object.assign(state, change);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name] && value !== "") query.set(name, value);
  history.replaceState(null, "", `${location.pathname}?${query}`);
}

// The question's part about time.
export function span() {
  if (state.range !== "custom") return { range: state.range, timezone: state.tz };
  const end = new Date(`${state.end}T00:00:00Z`);
  end.setUTCDate(end.getUTCDate() + 1); // the last day is part of it
  return { start: state.start, end: end.toISOString().slice(0, 10), timezone: state.tz };
}

export function interval() {
  if (state.interval) return state.interval;
  if (state.range === "last_60m") return "1m";
  if (["last_24h", "today", "yesterday"].includes(state.range)) return "1h";
  if (state.range === "custom") return (new Date(state.end) - new Date(state.start)) / DAY < 3 ? "1h" : "1d";
  return "1d";
}

export const compared = () => (state.compare === "1" ? "previous_period" : undefined);
