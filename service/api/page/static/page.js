// What the pages do: decide with a reason, log in and out, and stay up to date.
import { draw } from "./chart.js";

const { root } = document.documentElement.dataset;
const csrf = document.querySelector("meta[name=csrf]")?.content;
const message = () => document.getElementById("message");

async function call(method, path, body, match) {
  const headers = { "Content-Type": "application/json" };
  if (match) headers["If-Match"] = `"${match}"`; // refused if another person was faster
  if (csrf) headers["X-CSRF-Token"] = csrf;
  const response = await reach(path, { method, headers, body: body && JSON.stringify(body) });
  if (response.status === 401 && csrf) {
    const next = encodeURIComponent(location.pathname + location.search);
    location.href = `${root}/login?next=${next}`;
    throw new Error("Your session is over. Log in again.");
  }
  if (response.status === 204) return {};
  const answer = await response.json().catch(() => undefined);
  if (response.ok && answer) return answer;
  throw new Error(answer?.detail ?? answered(response, "The request did not succeed."));
}

// Fetches; a browser's own text for a failure ("Failed to fetch") says nothing to a person.
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Check that it runs, and load this page again.");
  }
}

function answered(response, what) {
  return `${what} The answer has the status ${response.status}, and its text is not the service's.`;
}

function say(text, bad = false) {
  const place = message();
  place.textContent = text;
  place.classList.toggle("bad", bad);
}

function charts() {
  for (const element of document.querySelectorAll("[data-chart]")) draw(element);
  pictures();
}

// Draws pictures in grey. The least pixel of a picture is black, the greatest is white.
function pictures() {
  for (const canvas of document.querySelectorAll("[data-picture]")) {
    const pixels = JSON.parse(canvas.dataset.picture);
    const [least, greatest] = [Math.min(...pixels), Math.max(...pixels)];
    const paper = canvas.getContext("2d");
    const image = paper.createImageData(canvas.width, canvas.height);
    pixels.forEach((pixel, i) => {
      const grey = (255 * (pixel - least)) / (greatest - least || 1);
      image.data.set([grey, grey, grey, 255], 4 * i);
    });
    paper.putImageData(image, 0, 0);
  }
}

// Replaces only elements with data-live. What a person has typed or opened stays.
async function refresh() {
  if (document.querySelector("dialog[open]")) return;
  const response = await reach(location.href, { headers: { Accept: "text/html" } });
  if (response.redirected && new URL(response.url).pathname === `${root}/login`) {
    location.href = response.url;
    return;
  }
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!response.ok) {
    const why = fresh.querySelector("main .failed-panel:not(noscript *)")?.textContent;
    throw new Error(why ?? answered(response, "This page could not be updated."));
  }
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other || other.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement);
    part.innerHTML = other.innerHTML;
    if (focused) {
      part.tabIndex = -1;
      part.focus();
    }
  }
  charts();
}

async function act(button, reason) {
  const body = button.dataset.body ? JSON.parse(button.dataset.body) : undefined;
  if (body && reason !== undefined && reason !== "") body.why = reason;
  try {
    say("Sending …");
    const done = await call(button.dataset.method, button.dataset.path, body, button.dataset.match);
    say(done.effect || button.dataset.done || "Done.");
    if (button.dataset.then) location.href = button.dataset.then;
    else refresh().catch(() => {}); // what was asked is done; the next update says what is wrong
  } catch (error) {
    say(error.message, true);
    refresh().catch(() => {}); // another person may have been faster: show what holds now
  }
}

function ask(button) {
  const dialog = document.getElementById("decide");
  dialog.querySelector("h2").textContent = button.textContent;
  dialog.querySelector("[data-told]").textContent = button.dataset.told ?? "";
  const reason = dialog.querySelector("input");
  reason.value = "";
  // A change takes a reason unless data-reason says "none"; "required" does not go without one.
  const asked = button.dataset.reason;
  reason.required = asked === "required";
  dialog.querySelector("[data-reason]").hidden = asked === "none";
  dialog.onclose = () => {
    if (dialog.returnValue === "yes") act(button, asked === "none" ? undefined : reason.value.trim());
    button.focus();
  };
  dialog.returnValue = "";
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-method]");
  if (!button) return;
  if (button.dataset.told !== undefined) ask(button);
  else act(button);
});

document.getElementById("login")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("POST", `${root}/v1/session`, { key: event.target.elements.key.value.trim() });
    const next = new URLSearchParams(location.search).get("next") ?? `${root}/`;
    // Only a path of this service is allowed, so that no link to the login can lead elsewhere.
    location.href = next.startsWith("/") && !next.startsWith("//") ? next : `${root}/`;
  } catch (error) {
    say(error.message, true);
  }
});

// The form that scores one vector. Nothing of it is recorded.
function line(text, strong = false) {
  const made = document.createElement(strong ? "strong" : "p");
  made.textContent = text;
  if (!strong) return made;
  const around = document.createElement("p");
  around.append(made);
  return around;
}

function short(value) {
  return typeof value === "number" ? Number(value.toPrecision(4)) : value;
}

document.querySelector("form[data-try]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const place = document.querySelector("[data-answer]");
  const features = JSON.parse(form.dataset.features);
  const worded = JSON.parse(form.dataset.words || "[]");
  const vector = form.elements.vector.value.split(/[\s,;]+/).filter(Boolean)
    .map((cell, place) => (worded.includes(features[place]) ? cell : Number(cell)));
  const bad = vector.findIndex((value) => typeof value === "number" && !Number.isFinite(value));
  if (bad >= 0 || vector.length !== features.length) {
    const why = bad >= 0 ? `Value ${bad + 1} is not a number.` : `These are ${vector.length} values.`;
    place.replaceChildren(line(`${why} Give ${features.length}: ${features.join(", ")}.`));
    return;
  }
  place.replaceChildren(line("Scoring …"));
  try {
    const record = () => Object.fromEntries(features.map((name, place) => [name, vector[place]]));
    const body = worded.length ? { records: [record()] } : { vectors: [vector] };
    const said = await call("POST", form.dataset.try, body);
    const rare = 1 / Math.max(said.p_values[0], 1e-12);
    const word = said.is_anomaly[0] ? "Anomalous" : "Normal";
    const told = [
      line(`${word}: severity ${said.severities[0].toPrecision(3)}. An alarm begins at 1.`, true),
      line(`As rare as 1 in ${Number(rare.toPrecision(2)).toLocaleString("en")} normals, by version ${said.version}. Nothing is recorded.`),
    ];
    const list = document.createElement("ul");
    for (const part of said.attributions[0]) {
      const item = document.createElement("li");
      item.textContent = `${part.feature}: ${short(part.value)} where ${short(part.expected)} is expected`;
      list.append(item);
    }
    place.replaceChildren(...told, list);
  } catch (error) {
    place.replaceChildren(line(error.message));
  }
});

function follow() {
  if (!document.querySelector("[data-live]")) return;
  let lost = false;
  let stale = false;
  let waiting;
  const update = async () => {
    try {
      await refresh();
      if (stale) say("This page is up to date again.");
      stale = false;
    } catch (error) {
      stale = true;
      say(`This page may be out of date. ${error.message}`, true);
    }
  };
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 300);
  };
  // A panel that could not be read is read again.
  setInterval(() => document.querySelector("[data-live] .passing") && soon(), 5000);
  let stream;
  const listen = () => {
    stream = new EventSource(`${root}/v1/stream`);
    stream.addEventListener("change", soon);
    stream.onopen = () => {
      if (lost) say("The connection is back.");
      soon(); // the stream does not report changes from before it was open
      lost = false;
    };
    stream.onerror = () => {
      if (!lost) say("The connection is lost. This page may be out of date. Trying again …", true);
      lost = true;
      if (stream.readyState !== EventSource.CLOSED) return;
      soon(); // the answer was no stream: the key may be revoked, and the browser does not try again
      setTimeout(listen, 5000);
    };
  };
  listen();
  setInterval(soon, 60_000);
  window.addEventListener("pagehide", () => stream.close());
  // The browser may keep the page in memory and show it again on the way back.
  window.addEventListener("pageshow", (event) => event.persisted && listen());
}

// A page that failed for a while only is loaded again once it can be shown.
function tryAgain() {
  if (!document.querySelector("[data-again]")) return;
  setInterval(async () => {
    const response = await fetch(location.href).catch(() => undefined);
    if (response?.ok) location.reload();
  }, 5000);
}

charts();
follow();
tryAgain();
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) { width = innerWidth; charts(); }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);
