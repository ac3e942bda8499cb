// The service's API as the page needs it.

/** A failure in words for the reader; `code` is the service's, or "" when it did not answer. */
export class Problem extends Error {
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }
}

const KEY = "refersam-key"; // in this tab's storage, and only until the tab is closed

/** Has every request show an API key. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

function withKey(options) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } } : options;
}

async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, url.startsWith("v1/") ? withKey(options) : options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("application/problem+json")) {
    const problem = await response.json();
    throw new Problem(problem.detail || problem.title, problem.code);
  }
  throw new Problem(`The server answered ${response.status} ${response.statusText}.`);
}

/** The variants that can answer: [{variant, label, …}]. */
export async function models() {
  return (await (await ask("v1/models")).json()).models;
}

/**
 * The bundled pictures for weights with a label: [{file, width, height, phrases}]; none when none are bundled.
 * Weights with the label "demo" know scenes of emoji. All others are given photographs.
 */
export async function samples(label) {
  const list = label === "demo" ? "samples" : "photographs";
  try {
    return await (await ask(`web/samples/${list}.json`)).json();
  } catch (problem) {
    if (problem.code === "not_found") return [];
    throw problem;
  }
}

/** The names that the photo weights know: [{name, examples}], most examples first. */
export async function names() {
  return (await ask("web/segment/names.json")).json();
}

/** The encoded picture of a sample, as a File. */
export async function sampleFile(sample) {
  const blob = await (await ask(`web/samples/${sample.file}`)).blob();
  return new File([blob], sample.file, { type: blob.type });
}

/**
 * The mask of a phrase in an encoded picture.
 * Resolves to {phrase, status, score, area, bbox: [x, y, w, h], png: Blob, width, height, variant, warnings}.
 */
export async function segment(file, phrase, variant, signal) {
  const form = new FormData();
  form.append("image", file);
  form.append("phrase", phrase);
  form.append("format", "png");
  if (variant) form.append("variant", variant);
  const options = { method: "POST", body: form, headers: { accept: "application/json" }, signal };
  const answer = await (await ask("v1/segment", options)).json();
  const [result] = answer.results;
  const bytes = Uint8Array.from(atob(result.masks.png), (c) => c.charCodeAt(0));
  return {
    ...result,
    png: new Blob([bytes], { type: "image/png" }),
    width: answer.image.width,
    height: answer.image.height,
    variant: answer.model.variant,
    warnings: answer.warnings ?? [],
  };
}
