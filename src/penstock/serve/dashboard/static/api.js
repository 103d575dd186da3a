// Asking the query API, with the session's cookie.
export class Refused extends Error {
  constructor(problem) { super(problem.detail); this.problem = problem; this.status = problem.status; }
}

// A number keeps the digits it was sent with: money may have more places than a double holds.
const EXACT = Symbol.for("penstock.exact");
function parse(text) {
  return JSON.parse(text, function (name, value, context) {
    if (typeof value === "number" && context?.source && String(value) !== context.source) {
      (this[EXACT] ??= {})[name] = context.source;
    }
    return value;
  });
}
export const exact = (row, name) => row[EXACT]?.[name] ?? row[name];

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ status: 0, title: "No connection", detail: "The server could not be reached.", hint: "Check the network; the page tries again when you do." });
  }
  if (response.status === 204) return null;
  const text = await response.text();
  if (response.ok) return parse(text);
  let problem;
  try { problem = JSON.parse(text); } catch { problem = { title: "The server failed", detail: `It answered ${response.status}.` }; }
  throw new Refused({ ...problem, status: response.status });
}

export const me = () => send("v1/me");
export const rollups = async () => (await send("v1/rollups")).rollups;
export const signIn = (key) => send("v1/session", { method: "POST", headers: { Authorization: `Bearer ${key}` } });
export const signOut = () => send("v1/session", { method: "DELETE" });

export function address(rollup, what, asked) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) {
    if (value === undefined || value === null || value === "" || value === false) continue;
    query.set(name, Array.isArray(value) ? value.join(",") : typeof value === "object" ? JSON.stringify(value) : value);
  }
  return `v1/rollups/${encodeURIComponent(rollup)}/${what}?${query}`;
}
export const query = (rollup, asked, signal) => send(address(rollup, "query", asked), { signal });
