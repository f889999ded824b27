// The page polls the agent for its state and changes only what differs, so that neither focus nor images are
// lost. All text is inserted as text, never as HTML: a prompt may contain anything.

const PAUSE_MS = 1500;
const byId = (id) => document.getElementById(id);
let shown = null;
let states = null;
let timer = 0;

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// make the children of `list` match the items, in their order; existing children are kept
function keep(list, items, keyOf, make, update) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = old.get(key);
    if (node === undefined) {
      node = make(item);
      node.dataset.key = key;
    }
    old.delete(key);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
    if (update) update(node, item);
  }
  for (const node of old.values()) node.remove();
}

function picture(path, version, alt) {
  const image = element("img");
  image.alt = alt;
  image.loading = "lazy";
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 128));
  image.src = `pictures/${path}.png?v=${version}`;
  return image;
}

const steps = (count) => `${count.toLocaleString("en")} ${Math.abs(count) === 1 ? "step" : "steps"}`;

function joules(value) {
  const [scale, unit] = Math.abs(value) >= 1e6 ? [1e6, "MJ"] : Math.abs(value) >= 1e3 ? [1e3, "kJ"] : [1, "J"];
  return `${(value / scale).toLocaleString("en", { maximumSignificantDigits: 3 })} ${unit}`;
}

function caption(way, step) {
  if (step === way.num_steps) return `after step ${step}, finished`;
  if (step === way.received_step) return step === 0 ? "noise" : `received after ${steps(step)}, all shared`;
  return `after step ${step}, run here`;
}

// one part of the strip: the image before `step`; the last part is the finished image
function makePart(prompt, way, part) {
  const item = element("li", part.step > 0 && part.step <= way.received_step ? "shared" : "");
  const figure = element("figure");
  const words = caption(way, part.step);
  figure.append(picture(part.path, part.version, `${prompt}: ${words}`), element("figcaption", "", words));
  item.append(figure);
  return item;
}

function updateStrip(list, prompt, id, way) {
  const parts = way.strip.map((part) => ({ ...part, path: `${id}/${part.part}` }));
  if (parts.length && way.version) parts.push({ step: way.num_steps, path: id, version: way.version });
  list.hidden = parts.length === 0;
  keep(list, parts, (part) => `${part.path}-${part.version}`, (part) => makePart(prompt, way, part));
}

function makeTask(task) {
  const item = element("li", "card");
  item.id = `task-${task.id}`;
  const head = element("div", "head");
  head.append(element("p", "prompt", task.prompt), element("span", "state"));
  const disclosed = element("p", "soft");
  disclosed.append(element("b", "", "Disclosed: "), element("span", "disclosed"));
  const strip = element("ol", "strip");
  strip.setAttribute("aria-label", "Intermediate pictures so far");
  item.append(head, disclosed, strip);
  return item;
}

function updateTask(item, task) {
  const state = item.querySelector(".state");
  setText(state, task.state);
  state.dataset.state = task.state;
  setText(item.querySelector(".disclosed"), task.disclosed);
  updateStrip(item.querySelector(".strip"), task.prompt, task.id, task.begun ?? { strip: [] });
  const link = item.querySelector("a");
  if (task.picture && !link) {
    const made = element("a", "", "See the picture");
    made.href = `#picture-${task.id}`;
    item.append(made);
  } else if (!task.picture && link) link.remove();
}

function makePicture(entry) {
  const item = element("li", "card");
  item.id = `picture-${entry.id}`;
  item.tabIndex = -1;
  const words = element("div");
  const own = entry.num_steps - entry.received_step;
  const told = entry.received_step
    ? `${steps(entry.received_step)} of ${entry.num_steps} came from the group, ${own} ran here.`
    : `It ran alone: all ${steps(entry.num_steps)} here.`;
  const bar = element("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  for (let step = 0; step < entry.num_steps; step += 1)
    bar.append(element("i", step < entry.received_step ? "shared" : "own"));
  const strip = element("ol", "strip");
  strip.setAttribute("aria-label", "Intermediate pictures");
  words.append(element("p", "prompt", entry.prompt), element("p", "soft", told), bar, strip);
  item.append(element("div", "place"), words);
  return item;
}

function updatePicture(item, entry) {
  const place = item.querySelector(".place");
  const shownVersion = entry.version ?? "damaged";
  if (place.dataset.version !== shownVersion) {
    place.dataset.version = shownVersion;
    const whole = entry.version !== null;
    const inside = whole ? picture(entry.id, entry.version, entry.prompt) : element("p", "error", "The file of this picture is damaged.");
    if (whole) inside.classList.add("picture");
    place.replaceChildren(inside);
  }
  updateStrip(item.querySelector(".strip"), entry.prompt, entry.id, entry);
}

function updateSums(state) {
  const sums = state.sums;
  const waiting = state.tasks.filter((task) => !["finished", "failed"].includes(task.state)).length;
  setText(byId("sum-pictures"), sums.pictures.toLocaleString("en"));
  setText(byId("sum-waiting"), `${waiting.toLocaleString("en")} waiting`);
  setText(byId("sum-steps"), (sums.own_steps + sums.shared_steps).toLocaleString("en"));
  setText(byId("sum-steps-of"), sums.shared_steps ? `${sums.shared_steps.toLocaleString("en")} of them for groups` : "");
  setText(byId("sum-saved"), sums.saved_steps.toLocaleString("en"));
  const less = sums.saved_steps < 0 ? "more than it was spared was run for groups; " : "";
  setText(byId("sum-saved-of"), `${less}alone: ${steps(sums.solo_steps)}`);
  setText(byId("sum-energy"), joules(sums.energy_j));
  const strips = sums.strip_j > 0 ? `; and ${joules(sums.strip_j)} to decode intermediate pictures` : "";
  setText(byId("sum-energy-of"), `${joules(sums.saved_j)} saved by sharing${strips}`);
  setText(byId("sum-source"), sums.source);
}

function updateLedger(ledger) {
  setText(byId("ledger-disclosures"), ledger.disclosures === null ? "–" : ledger.disclosures.toLocaleString("en"));
  setText(byId("ledger-bits"), ledger.bits === null ? "–" : ledger.bits.toLocaleString("en"));
  setText(byId("ledger-words"), ledger.words);
}

function tell(state) {
  const now = new Map(state.tasks.map((task) => [task.id, task.state]));
  if (states !== null) {
    const news = state.tasks
      .filter((task) => states.has(task.id) && states.get(task.id) !== task.state)
      .map((task) => `${task.state}: ${task.prompt}`);
    if (news.length) setText(byId("news"), news.join("; "));
  }
  states = now;
}

function show(state) {
  const server = state.server === null ? "" : ` Server: ${state.server}.`;
  setText(byId("agent"), `The agent runs, as client ${state.client}. ${state.busy ? "It is computing." : "It computes nothing now."}${server}`);
  byId("damaged").hidden = state.damaged.length === 0;
  keep(byId("damaged-files"), state.damaged, (name) => name, (name) => element("li", "", name));
  updateSums(state);
  updateLedger(state.ledger);
  keep(byId("queue"), state.tasks, (task) => task.id, makeTask, updateTask);
  byId("queue-empty").hidden = state.tasks.length > 0;
  keep(byId("gallery"), state.pictures, (entry) => entry.id, makePicture, updatePicture);
  byId("gallery-empty").hidden = state.pictures.length > 0;
  tell(state);
}

async function poll() {
  clearTimeout(timer);
  const begun = performance.now();
  try {
    const reply = await fetch("state.json");
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    const text = await reply.text();
    if (text !== shown) {
      show(JSON.parse(text));
      shown = text;
    }
  } catch (error) {
    shown = null;
    setText(byId("agent"), "The agent does not answer; it is asked again. After a new start this page has another address: `fedaigc device page HOME` prints it.");
  }
  clearTimeout(timer);
  // a home with thousands of prompts is polled less often: the agent has other work
  if (!document.hidden) timer = setTimeout(poll, Math.max(PAUSE_MS, 20 * (performance.now() - begun)));
}

async function add(event) {
  event.preventDefault();
  const field = byId("prompt");
  const text = field.value;
  let mistake = "";
  try {
    const reply = await fetch("prompts", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text }),
    });
    const told = await reply.text();
    if (!reply.ok) mistake = reply.status === 422 ? JSON.parse(told).error : told;
  } catch (error) {
    mistake = "The agent does not answer: the prompt was not added.";
  }
  setText(byId("prompt-error"), mistake);
  field.setAttribute("aria-invalid", String(mistake !== ""));
  if (mistake === "") {
    // keep what was typed in the meantime
    if (field.value === text) field.value = "";
    setText(byId("news"), `waiting: ${text}`);
  }
  await poll();
}

byId("add").addEventListener("submit", add);
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
poll();
