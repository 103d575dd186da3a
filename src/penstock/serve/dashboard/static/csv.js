// The table as a file (RFC 4180), with all the digits that were sent.
import { exact } from "./api.js";
import { el } from "./dom.js";

function field(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]+(e[+-]?\d+)?$/i.test(text)) text = `'${text}`; // a spreadsheet would run it as a formula
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(names, rows) {
  return [names, ...rows.map((row) => names.map((name) => exact(row, name)))].map((line) => line.map(field).join(",")).join("\r\n") + "\r\n";
}

export function download(file, names, rows) {
  const address = URL.createObjectURL(new Blob(["\ufeff", csv(names, rows)], { type: "text/csv;charset=utf-8" }));
  el("a", { href: address, download: file.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
