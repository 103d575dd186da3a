// Signing in by a key, or by a token that came in the address behind "#", where it is sent to no server.
import { Refused, signIn } from "./api.js";
import { $, el } from "./dom.js";

export async function fromFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  const text = given.get("key") ?? given.get("token");
  if (!text) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    await signIn(text);
  } catch (error) {
    error.given = true;
    throw error;
  }
}

export function form(done, problem) {
  const input = el("input", { id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false", "aria-describedby": "key-help key-wrong" });
  const wrong = el("p", { class: "wrong", id: "key-wrong", role: "alert" }, problem ? `${problem.detail}` : "");
  const send = el("button", { type: "submit", class: "main" }, "Open");
  async function submit(event) {
    event.preventDefault();
    send.disabled = true;
    try {
      await signIn(input.value.trim());
      input.value = "";
      done();
    } catch (error) {
      wrong.textContent = error instanceof Refused && error.status === 401 ? "That key is not valid here. It may have expired, or a letter may be missing." : error.problem?.detail ?? error.message;
      send.disabled = false;
      input.focus();
    }
  }
  $("page").replaceChildren(el("section", { class: "card gate", "aria-labelledby": "gate-title" },
    el("h1", { id: "gate-title" }, "Open your numbers"),
    el("p", { class: "hint", id: "key-help" }, "Paste the access key that you were given. It stays between this browser and this server."),
    el("form", { onsubmit: submit }, el("label", { for: "key" }, "Access key"), input, wrong, send)));
  input.focus();
}

export function refused(problem, who, own, again) {
  $("page").replaceChildren(el("section", { class: "card gate", "aria-labelledby": "gate-title" },
    el("h1", { id: "gate-title" }, "This page is not open to you"),
    el("p", {}, problem.detail),
    el("p", { class: "hint" }, `You are signed in as ${who}.`),
    el("div", { class: "choices" }, own && el("a", { class: "main", href: own }, "Open your own page"), el("button", { type: "button", onclick: again }, "Use another key"))));
}
