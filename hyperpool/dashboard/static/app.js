// The dashboard. Everything that comes from the pooler becomes a text node or an attribute's value, never markup.

import { spell } from "/dashboard/formats.js";

const EVERY = 1000; // milliseconds between two looks
const KEPT = 120; // looks that a curve shows
const SHORTEST = 30; // looks that a curve has room for, at least
const TILES = [
  // Of the first panel: what has a tile, and a curve in it.
  "queries", "xacts", "query_time", "wait_time", "sent", "hit_rate", "saved_time", "clients", "waiting", "max_wait",
  "sv_active", "sv_free",
];
const ORDERS = [
  ["pause", "Pause", "Servers are closed as they become free, and clients wait until it is resumed."],
  ["resume", "Resume", "Clients get servers again."],
  ["reconnect", "Reconnect", "Every server connection is replaced as it becomes free."],
  ["purge cache", "Purge cache", "All answers that are kept are dropped."],
];

const find = (id) => document.getElementById(id);
const history = new Map();
let token = ""; // kept nowhere else
let newest = [];
let drawn = "";

function make(tag, text = "", classes = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (classes) element.className = classes;
  return element;
}

// -- figures ----------------------------------------------------------------------------------------------------------

function curve(values) {
  const known = values.filter((value) => value !== null);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const width = Math.max(values.length, SHORTEST) - 1;
  svg.setAttribute("viewBox", `0 0 ${width} 24`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(...known, 0) || 1;
  const points = values
    .map((value, place) => [width + 1 - values.length + place, value])
    .filter(([, value]) => value !== null)
    .map(([x, value]) => `${x},${(23 - 22 * (value / top)).toFixed(1)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

function remember(panel) {
  panel.fields.forEach((field, place) => {
    const values = history.get(field.name) ?? [];
    values.push(panel.rows[0][place]);
    history.set(field.name, values.slice(-KEPT));
  });
}

function drawSummary(panel) {
  const tiles = TILES.map((name) => {
    const place = panel.fields.findIndex((field) => field.name === name);
    const field = panel.fields[place];
    const value = panel.rows[0][place];
    const tile = make("div", "", field.alarm && value ? "tile alarm" : "tile");
    tile.dataset.name = name;
    tile.append(make("span", field.title, "label"), make("span", spell(field.kind, value), "value"));
    tile.append(curve(history.get(name)));
    return tile;
  });
  find("summary").replaceChildren(...tiles);
  const cells = Object.fromEntries(panel.fields.map((field, place) => [field.name, panel.rows[0][place]]));
  const state = cells.paused ? `${cells.state}; paused: ${cells.paused}` : cells.state;
  find("state").textContent = state;
  find("state").className = state === "active" ? "" : "alarm";
  document.title = `hyperpool: ${state}`;
  find("connection").title = cells.version;
}

// -- tables -----------------------------------------------------------------------------------------------------------

const isText = (kind) => kind === "text" || kind === "code";

function drawCell(field, value, tag = "td") {
  const text = spell(field.kind, value);
  const classes = [isText(field.kind) ? field.kind : "number"];
  if (field.alarm && value) classes.push("alarm");
  if (text === "" || text === "-") classes.push("empty");
  const cell = make(tag, text, classes.join(" "));
  cell.dataset.label = field.title;
  return cell;
}

function drawRow(panel, row) {
  const line = make("tr");
  panel.fields.forEach((field, place) => line.append(drawCell(field, row[place])));
  if (token) {
    const cell = make("td", "", "orders");
    const of = (name) => row[panel.fields.findIndex((field) => field.name === name)];
    if (panel.key === "databases") cell.append(...orderButtons({ database: of("name") }));
    if (panel.key === "queries") cell.append(...orderButtons({ fingerprint: of("fingerprint") }));
    if (cell.childElementCount) line.append(cell);
  }
  return line;
}

function drawPanel(panel, filter) {
  const section = make("section");
  section.id = `panel-${panel.key}`;
  const rows = panel.rows.filter((row) => !filter || row.join("\n").toLowerCase().includes(filter));
  section.append(make("h2", panel.title));
  if (!rows.length) {
    section.append(make("p", panel.rows.length ? "No row fits the filter." : panel.empty, "none"));
    return section;
  }
  const table = make("table");
  const heads = make("tr");
  panel.fields.forEach((field) => {
    const head = make("th", field.title, isText(field.kind) ? field.kind : "number");
    head.scope = "col";
    heads.append(head);
  });
  const thead = make("thead");
  thead.append(heads);
  const tbody = make("tbody");
  tbody.append(...rows.map((row) => drawRow(panel, row)));
  table.append(thead, tbody);
  const frame = make("div", "", "frame");
  frame.append(table);
  section.append(frame);
  if (panel.more) section.append(make("p", `${panel.more} more are not shown.`, "none"));
  return section;
}

function drawTables() {
  const filter = find("filter").value.trim().toLowerCase();
  const wanted = JSON.stringify([newest, filter, Boolean(token)]);
  // Who marks text to copy it, or works through buttons with the keyboard, is not disturbed.
  const reading = !document.getSelection().isCollapsed || find("panels").contains(document.activeElement);
  if (wanted === drawn || (reading && drawn)) return;
  drawn = wanted;
  const places = [...document.querySelectorAll(".frame")].map((one) => [one.parentElement.id, one.scrollLeft]);
  find("panels").replaceChildren(...newest.slice(1).map((panel) => drawPanel(panel, filter)));
  for (const [id, left] of places) {
    const frame = find(id)?.querySelector(".frame");
    if (frame) frame.scrollLeft = left;
  }
}

// -- orders -----------------------------------------------------------------------------------------------------------

/** Ask, and wait for yes or no. */
function ask({ title, text, yes, wantsToken = false, alone = false }) {
  const dialog = find("dialog");
  find("dialog-title").textContent = title;
  find("dialog-text").textContent = text;
  find("dialog-yes").textContent = yes;
  find("dialog-no").hidden = alone;
  const input = find("dialog-token");
  input.hidden = !wantsToken;
  input.value = "";
  return new Promise((resolve) => {
    const end = (answer) => { dialog.onclose = null; dialog.close(); resolve(answer); };
    dialog.onclose = () => resolve(null);
    find("dialog-no").onclick = () => end(null);
    find("dialog-form").onsubmit = (event) => {
      event.preventDefault();
      end(wantsToken ? input.value : "yes");
    };
    dialog.showModal();
    if (!wantsToken) find(alone ? "dialog-yes" : "dialog-no").focus();
  });
}

const tell = (title, text) => ask({ title, text, yes: "Close", alone: true });

function asAdmin(path, more = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...(more.body ? { "Content-Type": "application/json" } : {}) };
  return fetch(path, { ...more, headers, credentials: "omit", cache: "no-store" });
}

async function becomeAdmin() {
  const text = "With the admin token, this page can pause, resume, reconnect, reload and purge. It forgets the token "
    + "when it is closed or loaded again.";
  const given = await ask({ title: "Admin token", text, yes: "Unlock", wantsToken: true });
  if (!given) return;
  token = given.trim();
  let refusal = "";
  try {
    const answer = await asAdmin("/dashboard/admin");
    if (!answer.ok) refusal = await answer.text();
  } catch (error) {
    refusal = String(error);
  }
  if (refusal) token = "";
  drawOrders();
  if (refusal) await tell("Not unlocked", refusal);
}

async function order(command, title, effect, of) {
  const what = of.database ? `database ${of.database}` : of.fingerprint ? `query ${of.fingerprint}` : "everything";
  if (!(await ask({ title: `${title}: ${what}?`, text: effect, yes: title }))) return;
  let text;
  try {
    const answer = await asAdmin("/dashboard/do", { method: "POST", body: JSON.stringify({ command, ...of }) });
    const isJson = (answer.headers.get("Content-Type") ?? "").startsWith("application/json");
    text = isJson ? (await answer.json()).text : await answer.text();
  } catch (error) {
    text = String(error);
  }
  document.activeElement?.blur();
  await tell(title, text);
  look();
}

function orderButtons(of) {
  const fitting = of.fingerprint ? ORDERS.filter(([command]) => command === "purge cache") : ORDERS;
  return fitting.map(([command, title, effect]) => {
    const button = make("button", title);
    button.onclick = () => order(command, title, effect, of);
    return button;
  });
}

function drawOrders() {
  const place = find("orders");
  if (!token) {
    const unlock = make("button", "Unlock");
    unlock.id = "unlock";
    unlock.onclick = becomeAdmin;
    place.replaceChildren(unlock);
  } else {
    const reload = make("button", "Reload");
    reload.onclick = () => order("reload", "Reload", "The settings file is read again.", {});
    const lock = make("button", "Lock");
    lock.onclick = () => { token = ""; drawOrders(); };
    place.replaceChildren(...orderButtons({}), reload, lock);
  }
  drawTables();
}

// -- looking ----------------------------------------------------------------------------------------------------------

let timer = 0;

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  const place = find("connection");
  try {
    const answer = await fetch("/dashboard/overview", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    newest = await answer.json();
    remember(newest[0]);
    drawSummary(newest[0]);
    drawTables();
    place.textContent = `live, ${new Date().toLocaleTimeString()}`;
    place.className = "";
  } catch (error) {
    place.textContent = `no news since then: ${error.message}`;
    place.className = "alarm";
  }
  clearTimeout(timer);
  timer = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", look);
find("filter").addEventListener("input", drawTables);
drawOrders();
look();
