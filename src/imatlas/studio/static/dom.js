// Small helpers for building elements. Text from the server only ever becomes text nodes: file names are strangers' words.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element: h("button", {class: "x", onclick: f, "aria-label": "y"}, children…). */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name !== "list" && name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Says a sentence to screen readers, without moving the focus. */
export function say(sentence) {
  byId("status").textContent = sentence;
}

let leaving = 0; // the timer of the sentence that is shown

/** Shows and says for some seconds what was done. */
export function tellDone(sentence) {
  const box = byId("done");
  box.textContent = sentence;
  clearTimeout(leaving);
  leaving = setTimeout(() => { box.textContent = ""; }, Math.max(5000, 60 * sentence.length)); // time to read it
}

/** Shows a sentence in the corner; errors stay until they are dismissed or ten seconds have passed. */
export function toast(sentence, kind = "error") {
  const box = h("div", { class: `toast ${kind}`, data: { testid: "toast" } }, h("p", {}, sentence));
  const close = h("button", { type: "button", class: "icon", "aria-label": "Dismiss the message", onclick: () => box.remove() }, "×");
  box.append(close);
  const corner = byId("toasts");
  for (const other of corner.querySelectorAll("p")) if (other.textContent === sentence) other.parentNode.remove();
  corner.append(box);
  setTimeout(() => box.remove(), kind === "error" ? 10000 : 4000);
}

/** Runs something that may fail; a failure becomes a toast, and the answer undefined. */
export async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    toast(error.message);
    if (error.name !== "ApiError") console.error(error);
    return undefined;
  }
}

/** As guarded, with the button disabled and marked busy meanwhile. */
export async function busy(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await guarded(work);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

/** Shows a bar of progress during some work, which may tell it of events with a share that is done. */
export async function withProgress(bar, work) {
  bar.hidden = false;
  bar.removeAttribute("value");
  try {
    return await work(({ progress }) => { if (progress !== null) bar.value = progress; });
  } finally {
    bar.hidden = true;
  }
}

const NUMBER = new Intl.NumberFormat("en-US");

/** 1234 as "1,234". */
export const count = (n) => NUMBER.format(n);

/** "1 image", "20 images". */
export const images = (n) => `${count(n)} ${n === 1 ? "image" : "images"}`;

/** A number with about three digits. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return count(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

/** A share of pairs in words: "closer than 99 % of pairs". Rounded down, so that it never claims too much. */
export function closeness(share) {
  if (share === null || share === undefined) return "";
  const percent = share * 100;
  const digits = percent > 99 && percent < 100 ? 2 : 0;
  const scale = 10 ** digits;
  return `closer than ${Number((Math.floor(percent * scale + 1e-6) / scale).toFixed(digits))} % of pairs`;
}

/** Whether keys typed there are text, so that no shortcut may take them. */
export const isTyping = (target) =>
  target instanceof HTMLElement && target.matches("input:not([type=checkbox]):not([type=button]):not([type=range]), textarea, select");

/** A function that runs at most once per frame, with the latest arguments. */
export function perFrame(work) {
  let latest = null;
  return (...values) => {
    if (latest === null) requestAnimationFrame(() => { const now = latest; latest = null; work(...now); });
    latest = values;
  };
}

/** A function that runs once the calls have paused. */
export function debounced(work, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}
