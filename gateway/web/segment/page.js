import * as api from "../shared/api.js";
import { draw, drawnSize, maskLayer } from "./overlay.js";

const $ = (id) => document.getElementById(id);

// What is on the page: the picture as it came and as it is drawn, and the last answer for it.
let file = null;
let picture = null;
let answer = null;
let mask = null;
let labels = new Map(); // variant → label of its weights
let request = null; // AbortController of the request under way
let opening = 0; // counts pictures, so that the last one chosen wins

const count = new Intl.NumberFormat("en");

function say(words) {
  $("status").textContent = words;
}

function complain(problem) {
  if (!problem && !$("key-form").hidden) return; // why a key is wanted stays until there is one
  $("problem").hidden = !problem;
  $("problem").textContent = problem ? problem.message : "";
  if (problem?.code === "unauthorized") askForKey();
}

function askForKey() {
  if ($("key-form").hidden) {
    $("key-form").hidden = false;
    $("key").focus();
  }
}

function redraw() {
  draw($("canvas"), picture, $("show").checked ? mask : null);
}

function forgetAnswer() {
  request?.abort();
  answer = mask = null;
  $("facts").hidden = $("actions").hidden = true;
  say("");
  complain(null);
}

/**
 * Opens a picture: a File, or the promise of one that is still on its way. Of several, the one chosen last wins,
 * however long each takes. Resolves to whether this one did.
 */
async function open(coming) {
  const turn = ++opening;
  let chosen, bitmap;
  try {
    chosen = await coming;
    bitmap = await createImageBitmap(chosen);
  } catch (error) {
    if (turn === opening) {
      forgetAnswer();
      if (picture) redraw();
      complain(error instanceof api.Problem ? error : new Error("This file is not a picture that the browser can show."));
    }
    return false;
  }
  if (turn !== opening) {
    bitmap.close();
    return false;
  }
  forgetAnswer();
  picture?.close();
  [file, picture] = [chosen, bitmap];
  showTries([]);
  markSample("");
  redraw();
  $("stage").style.setProperty("--aspect", picture.width / picture.height);
  $("stage").style.setProperty("--pixels", picture.width);
  $("canvas").hidden = false;
  $("canvas").setAttribute("aria-label", `The picture ${chosen.name}, ${picture.width} by ${picture.height} pixels`);
  return true;
}

async function openFromOutside(files) {
  const chosen = [...files].find((f) => f.type.startsWith("image/")) ?? files[0];
  if (chosen && (await open(chosen))) $("phrase").focus();
}

async function find() {
  const phrase = $("phrase").value.trim();
  if (!picture) {
    complain(new Error("Choose a picture first."));
    return;
  }
  if (!phrase) {
    complain(new Error("Say what to find."));
    $("phrase").focus();
    return;
  }
  request?.abort();
  complain(null);
  const own = (request = new AbortController());
  const variant = document.querySelector("input[name=variant]:checked")?.value ?? "";
  $("stage").setAttribute("aria-busy", "true");
  say("Looking …");
  const start = performance.now();
  try {
    const found = await api.segment(file, phrase, variant, own.signal);
    const drawn = found.status === "ok" ? await maskLayer(found.png, drawnSize(picture)) : null;
    if (own.signal.aborted) return;
    answer = found;
    mask = drawn;
    showAnswer(performance.now() - start);
  } catch (error) {
    if (own.signal.aborted) return;
    forgetAnswer();
    redraw();
    complain(error);
  } finally {
    if (request === own) {
      request = null;
      $("stage").removeAttribute("aria-busy");
    }
  }
}

function showAnswer(milliseconds) {
  const { phrase } = answer;
  const took = milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
  const share = (100 * answer.area) / (answer.width * answer.height);
  const [x, y, w, h] = answer.bbox;
  const quoted = `“${phrase.length > 80 ? `${phrase.slice(0, 79)}…` : phrase}”`;
  $("show").checked = true;
  redraw();
  if (answer.status === "empty") {
    say(`Nothing here is ${quoted}.`);
    $("canvas").setAttribute("aria-label", `The picture; nothing in it is ${quoted}`);
  } else {
    say(`Found ${quoted} in ${took}.`);
    $("canvas").setAttribute("aria-label", `The picture with ${quoted} outlined, ${share.toFixed(1)} percent of it`);
    $("score").textContent = answer.score.toFixed(3);
    $("area").textContent = `${share < 0.1 ? "< 0.1" : share.toFixed(1)} %`;
    $("area").title = `${count.format(answer.area)} pixels`;
    $("box").textContent = `${w} × ${h} at ${x}, ${y}`;
    const label = labels.get(answer.variant);
    $("answered").textContent = label ? `${answer.variant} (${label})` : answer.variant;
  }
  $("facts").hidden = $("actions").hidden = answer.status === "empty";
  for (const warning of answer.warnings) {
    if (warning.code === "phrase_truncated") {
      complain(new Error(`Only the beginning of the phrase was read: it has ${warning.tokens} tokens, the model reads ${warning.limit}.`));
    }
  }
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${file.name.replace(/\.[^.]*$/, "") || "picture"}-${suffix}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function saveOverlay() {
  const canvas = document.createElement("canvas");
  draw(canvas, picture, mask);
  canvas.toBlob((blob) => save(blob, "overlay"), "image/png");
}

function item(list, button) {
  const li = document.createElement("li");
  li.append(button);
  list.append(li);
}

function showTries(phrases) {
  $("tries").hidden = phrases.length === 0;
  $("tries-list").replaceChildren();
  for (const phrase of phrases) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = phrase;
    button.addEventListener("click", () => {
      $("phrase").value = phrase;
      $("stage").scrollIntoView({ block: "nearest" });
      find();
    });
    item($("tries-list"), button);
  }
}

async function openSample(sample) {
  if (!(await open(api.sampleFile(sample)))) return;
  $("phrase").placeholder = sample.phrases[0] ?? "";
  showTries(sample.phrases);
  markSample(sample.file);
}

function markSample(name) {
  for (const button of $("samples-list").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.dataset.file === name));
  }
}

/** Shows the samples that suit the weights. If weights of several labels are loaded, photographs come first. */
async function showSamples(models) {
  const labels = [...new Set(models.map((model) => (model.label === "demo" ? "demo" : "photo")))].sort().reverse();
  const samples = (await Promise.all(labels.map(api.samples))).flat();
  $("samples-list").replaceChildren();
  $("samples").hidden = samples.length === 0;
  samples.forEach((sample, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.file = sample.file;
    const image = document.createElement("img");
    image.src = `web/samples/${sample.file}`;
    image.width = sample.width;
    image.height = sample.height;
    image.alt = `Sample picture ${i + 1}: ${sample.file.replace(/\.[^.]*$/, "").replaceAll("-", " ")}`;
    button.append(image);
    button.addEventListener("click", () => {
      $("phrase").value = "";
      openSample(sample);
    });
    item($("samples-list"), button);
  });
  if (samples.length > 0 && opening === 0) await openSample(samples[0]);
}

/** Lists the names that the weights know, with the number of examples that they were trained on. */
async function showNames() {
  const names = await api.names();
  $("names-count").textContent = names.length;
  $("names").replaceChildren(
    ...names.map(({ name, examples }) => {
      const li = document.createElement("li");
      const number = document.createElement("small");
      number.textContent = count.format(examples);
      li.append(`${name} `, number);
      return li;
    }),
  );
}

function showVariants(models) {
  labels = new Map(models.map((model) => [model.variant, model.label]));
  const names = models.map((model) => model.variant);
  $("variants").hidden = names.length < 2;
  for (const label of ["demo", "photo"]) {
    $(label).hidden = !models.some((model) => model.label === label);
  }
  $("variant-choices").replaceChildren(
    ...["", ...names].map((name) => {
      const label = document.createElement("label");
      label.className = "choice";
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "variant", value: name, checked: name === "" });
      input.addEventListener("change", () => {
        if (answer) find();
      });
      label.append(input, name || "either");
      return label;
    }),
  );
}

let waiting = 0; // counts calls of waitForModels, so that the last one goes on alone

/** Asks for the variants until the model is loaded. */
async function waitForModels() {
  const turn = ++waiting;
  while (turn === waiting) {
    try {
      const models = await api.models();
      showVariants(models);
      showSamples(models).catch(complain);
      if (!$("photo").hidden) showNames().catch(complain);
      if ($("status").dataset.waiting) say("");
      delete $("status").dataset.waiting;
      return;
    } catch (problem) {
      if (problem.code === "unauthorized") {
        complain(problem);
        return; // until there is a key
      }
      if (!request) {
        $("status").dataset.waiting = "yes";
        say(problem.message);
      }
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  complain(null);
  waitForModels();
  if (picture && $("phrase").value.trim()) find();
});
$("file").addEventListener("change", () => {
  openFromOutside($("file").files);
  $("file").value = "";
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return; // text goes where the cursor is
  event.preventDefault();
  openFromOutside(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  openFromOutside(event.dataTransfer.files);
});
$("show").addEventListener("change", redraw);
$("save-mask").addEventListener("click", () => save(answer.png, "mask"));
$("save-overlay").addEventListener("click", saveOverlay);

waitForModels();
