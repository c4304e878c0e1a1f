// Shows the questions and the files, and asks the worker for both when an answer changes.

const find = (selector) => document.querySelector(selector);
const form = find("#questions");
const status = find("#status");
const questions = find("#questions > fieldset");
const { url, commit, ref } = document.body.dataset;

// The answers on the screen that differ from the defaults.
let answers = {};
// What is shown: the questions, the files and the command. And the link to the answers that these are of.
let state;
let shown = "";
// The files of the default answers, until the worker is ready.
let prerendered = {};
let ready = false;
let path = "README.md";

// Files in which most lines change, and which nobody reads.
const LOCKS = new Set(["uv.lock", "requirements.txt", "requirements-dev.txt"]);

// The worker

class Engine {
  constructor() {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.number = 0;
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      // Of a traceback, the last line says what is wrong.
      error === undefined ? resolve(result) : reject(new Error(error.trim().split("\n").pop()));
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the worker did not start"));
    };
  }

  call(method, ...given) {
    const id = this.number++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, method, given: method === "start" ? given[0] : given });
    });
  }
}

let engine;
// While the worker renders, only the newest answers wait for it.
let rendering = false;
let newest = false;
// Which answers of the link are to no question, in a sentence.
let ignored = "";

async function render() {
  if (!ready) return;
  if (rendering) {
    newest = true;
    return;
  }
  rendering = true;
  do {
    newest = false;
    const link = linked();
    shown = undefined;
    allowToTake();
    say("Copier renders…");
    try {
      const rendered = await engine.call("answer", answers);
      shown = link;
      show(rendered);
    } catch (error) {
      stopped(error);
    }
  } while (newest);
  rendering = false;
  document.body.dataset.rendered = location.hash;
}

function stopped(error) {
  shown = undefined;
  allowToTake();
  say(`Copier stopped: ${error.message}`);
}

function say(text) {
  status.textContent = [text, ignored].join(" ").trim();
}

// The questions

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function showQuestion(question) {
  const group = form.querySelector(`[data-question="${question.name}"]`);
  group.hidden = !question.asked;
  const problem = group.querySelector(".problem");
  if (problem.textContent !== question.problem) problem.textContent = question.problem;
  problem.hidden = !question.problem;
  // Newer than what was rendered, perhaps.
  const value = answers[question.name] ?? String(question.default);
  if (!question.choices.length) {
    const input = group.querySelector("input");
    input.setAttribute("aria-invalid", question.problem ? "true" : "false");
    if (input.value !== value) input.value = value;
    return;
  }
  for (const choice of question.choices) {
    const input = group.querySelector(`input[value="${CSS.escape(choice.value)}"]`);
    const label = input.closest("label");
    input.checked = choice.value === value;
    // It can be chosen all the same, so that a keyboard reaches the sentence.
    label.setAttribute("aria-disabled", choice.refusal ? "true" : "false");
    label.querySelector(".refusal")?.remove();
    if (choice.refusal && choice.refusal !== question.problem) {
      label.querySelector("span").append(element("span", { className: "refusal", textContent: choice.refusal }));
    }
  }
}

// The answers

function linked() {
  return new URLSearchParams(answers).toString();
}

function showLink() {
  const [page] = location.href.split("#");
  find("#link").href = linked() ? `${page}#${linked()}` : page;
}

// The command and the archive are of what is shown, so they wait until that is of the answers on the screen.
function allowToTake() {
  const current = shown === linked() && !state?.problem;
  find("#copy").disabled = !current;
  find("#archive").disabled = !current || !ready;
}

function take(next) {
  answers = next;
  state?.questions.forEach(showQuestion);
  showLink();
  allowToTake();
}

let typing;

// Waits until nothing more is typed.
function answer(next, wait = 0) {
  ignored = "";
  take(next);
  history.replaceState(null, "", find("#link").href);
  clearTimeout(typing);
  typing = setTimeout(render, wait);
}

// Another version of the page may have had other questions.
function answersOfLink() {
  const given = [...new URLSearchParams(location.hash.slice(1))];
  const isAsked = ([name]) => state.questions.some((question) => question.name === name);
  const others = given.filter((entry) => !isAsked(entry)).map(([name]) => name);
  ignored = others.length ? `The link has answers to questions that this page does not ask: ${others.join(", ")}.` : "";
  return Object.fromEntries(given.filter(isAsked));
}

// The files

function showTree() {
  const closed = new Set([...document.querySelectorAll("#tree details:not([open])")].map((folder) => folder.dataset.path));
  const focused = document.activeElement?.closest("#tree [data-path]");
  const root = element("ul", { id: "tree" });
  const folders = new Map([["", root]]);
  const folder = (name) => {
    if (!folders.has(name)) {
      const above = name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "";
      const list = element("ul");
      const details = element("details", { open: !closed.has(name) }, element("summary", { textContent: `${name.split("/").pop()}/` }), list);
      details.dataset.path = name;
      folder(above).append(element("li", {}, details));
      folders.set(name, list);
    }
    return folders.get(name);
  };
  for (const file of state.files) {
    const [name, parent] = [file.path.split("/").pop(), file.path.split("/").slice(0, -1).join("/")];
    const button = element("button", { type: "button" }, element("span", { textContent: name }));
    button.dataset.path = file.path;
    button.setAttribute("aria-current", String(file.path === path));
    if (file.change) {
      const counts = [file.added ? `+${file.added}` : "", file.removed ? `−${file.removed}` : ""].filter(Boolean).join(" ");
      button.append(element("i", { textContent: file.change === "changed" ? counts : file.change }));
    }
    folder(parent).append(element("li", { className: file.change }, button));
  }
  find("#tree").replaceWith(root);
  if (!focused) return;
  const same = `[data-path="${CSS.escape(focused.dataset.path)}"]`;
  root.querySelector(`button${same}, ${same} > summary`)?.focus({ preventScroll: true });
}

function showChanges() {
  const changed = state.files.filter((file) => file.change);
  const count = (kind) => changed.filter((file) => file.change === kind).length;
  const parts = ["added", "changed", "removed"].filter(count).map((kind) => `${count(kind)} ${kind}`);
  find("#changes").textContent = parts.length ? `By the last answer: ${parts.join(", ")}` : "";
}

async function showFile() {
  const shown = path;
  const lines = ready ? await engine.call("show", shown) : prerendered[shown];
  if (!lines || shown !== path) return;
  find("#path").textContent = shown;
  const code = find("#code");
  const rows = lines.map((line) => {
    const text = element("td");
    for (const [kind, value] of line.tokens) text.append(kind ? element("span", { className: kind, textContent: value }) : value);
    const mark = { added: "+", removed: "−" }[line.change] ?? "";
    const row = element("tr", { className: line.change }, element("td", { textContent: line.now || "" }), element("td", { textContent: mark }), text);
    if (mark) row.querySelector("td:nth-child(2)").setAttribute("aria-label", line.change);
    return row;
  });
  code.replaceChildren(element("table", { role: "presentation" }, element("tbody", {}, ...rows)));
  // To the first changed line, with some lines before it.
  const first = code.querySelector("tr.added, tr.removed");
  code.scrollTop = first ? first.offsetTop - 100 : 0;
}

function mostChanged() {
  const size = (file) => (LOCKS.has(file.path) ? 1 : file.added + file.removed);
  return state.files.filter((file) => file.change).sort((a, b) => size(b) - size(a))[0];
}

function choose(next) {
  path = next;
  for (const button of document.querySelectorAll("#tree button")) button.setAttribute("aria-current", String(button.dataset.path === path));
  showFile().catch(stopped);
}

function show(next) {
  state = next;
  state.questions.forEach(showQuestion);
  find("#command").value = state.command;
  allowToTake();
  if (state.problem) {
    say("An answer is refused. The files are those of the answers before.");
    return;
  }
  say(`${state.files.filter((file) => file.change !== "removed").length} files.`);
  const current = state.files.find((file) => file.path === path);
  const changed = mostChanged();
  if (!current || (changed && !current.change)) path = (changed ?? state.files[0]).path;
  showTree();
  showChanges();
  showFile().catch(stopped);
}

// What is taken away

async function copy(command) {
  // Only a page that came by HTTPS, or from this machine, has a clipboard.
  if (navigator.clipboard) return navigator.clipboard.writeText(command.value);
  command.select();
  if (!document.execCommand("copy")) throw new Error("the browser refuses");
}

find("#copy").addEventListener("click", async () => {
  const command = find("#command");
  try {
    await copy(command);
    say("The command is copied.");
  } catch {
    command.focus();
    command.select();
    say("Copy it with Ctrl+C: it is selected.");
  }
});

find("#archive").addEventListener("click", async () => {
  const name = state.questions.find((question) => question.name === "project_name").value;
  try {
    const archive = new Blob([await engine.call("archive")], { type: "application/zip" });
    const link = element("a", { href: URL.createObjectURL(archive), download: `${name}.zip` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    stopped(error);
  }
});

form.addEventListener("input", ({ target: { name, value, type } }) => {
  const { [name]: before, ...others } = answers;
  const { default: usual } = state.questions.find((question) => question.name === name);
  answer(value === String(usual) ? others : { ...others, [name]: value }, type === "radio" ? 0 : 250);
});

form.addEventListener("submit", (event) => event.preventDefault());

form.addEventListener("reset", (event) => {
  event.preventDefault();
  answer({});
});

window.addEventListener("hashchange", () => {
  if (questions.disabled) return;
  take(answersOfLink());
  render();
});

// The hash is that of the answers.
find(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("#file").focus();
});

// No inline handler, so that a browser needs no exception for it.
document.addEventListener("click", ({ target }) => {
  const button = target.closest("#tree button");
  if (button) choose(button.dataset.path);
});

// Start

async function keepForLater() {
  try {
    // Absent where the page came neither by HTTPS nor from this machine.
    await navigator.serviceWorker?.register(new URL("../service_worker.js", import.meta.url));
  } catch {
    // A page without one works too, while there is a network.
  }
}

async function begin() {
  const built = await (await fetch(new URL("default.json", import.meta.url))).json();
  prerendered = built.lines;
  state = built.state;
  take(answersOfLink());
  show(state);
  questions.disabled = false;
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") throw new Error("it has no WebAssembly");
  say("The default service. Copier is loading…");
  engine = new Engine();
  await engine.call("start", { url, commit, ref });
  ready = true;
  allowToTake();
  say("Copier is ready.");
  if (linked()) await render();
  document.body.dataset.ready = "true";
  // Not before, so that it finds in the browser's cache what the page has loaded.
  keepForLater();
}

begin().catch((error) => {
  // The files are those of the default answers, so that the questions show these too.
  take({});
  questions.disabled = true;
  status.textContent = `This browser can't run Copier (${error.message}). These are the default answers; run the command to choose others.`;
  status.className = "notice";
});
