// Two pictures of one size, before and after: with a divider between them, one of them, or their difference.
import { h } from "./dom.js";
import { pictureFrame } from "./frame.js";

const VIEWS = [["divider", "Divider"], ["before", "Before"], ["after", "After"], ["difference", "Difference"]];

/** {element, show({before, after, width, height, names}), alone({picture, width, height})}: a comparison of two pictures,
 * by their addresses; or one picture alone. */
export function comparison(label) {
  const frame = pictureFrame(label);
  const [before, after] = [0, 1].map(() => h("img", { alt: "", draggable: false }));
  const names = [0, 1].map(() => h("span", { class: "compare-name", "aria-hidden": "true" }));
  const line = h("div", { class: "compare-line", "aria-hidden": "true" });
  const divider = h("input", { type: "range", class: "compare-divider", min: 0, max: 100, step: 0.5, value: 50, data: { testid: "divider" } });
  const gain = h("input", { type: "range", min: 1, max: 32, value: 8, data: { testid: "gain" } });
  const gained = h("output", {});
  const amplified = h("label", { class: "field" }, "Amplified", gain, gained);
  const pictures = h("div", { class: "compare-pictures" }, before, after);
  frame.box.append(pictures, line, ...names, divider);
  frame.box.classList.add("compare");
  const buttons = VIEWS.map(([view, name]) => h("button", { type: "button", data: { compare: view }, onclick: () => choose(view) }, name));
  const views = h("div", { class: "segments", role: "group", "aria-label": "What is shown" }, buttons);
  frame.tools.prepend(views, amplified);

  function draw() {
    frame.box.style.setProperty("--at", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${Math.round(divider.value)} % ${names[0].textContent}`);
    pictures.style.filter = frame.box.dataset.view === "difference" ? `brightness(${gain.value})` : "";
    gained.textContent = `${gain.value} ×`;
  }

  function choose(view) {
    frame.box.dataset.view = view;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.compare === view));
    divider.hidden = line.hidden = view !== "divider";
    amplified.hidden = view !== "difference";
    before.hidden = view === "after";
    after.hidden = view === "before";
    names[0].hidden = view === "after" || view === "difference";
    names[1].hidden = view === "before" || view === "difference";
    draw();
  }

  for (const input of [divider, gain]) input.addEventListener("input", draw);
  choose("divider");
  return {
    element: frame.element,
    show(pair) {
      [before.src, after.src] = [pair.before, pair.after];
      pair.names.forEach((name, i) => { names[i].textContent = name; });
      before.alt = `The picture: ${pair.names[0]}`;
      after.alt = `The picture: ${pair.names[1]}`;
      divider.setAttribute("aria-label", `Divider between ${pair.names[0]} and ${pair.names[1]}`);
      frame.resize(pair.width, pair.height);
      if (views.hidden) choose("divider");
      views.hidden = false;
      draw();
    },
    alone({ picture, width, height }) {
      before.src = picture;
      before.alt = "The picture";
      after.removeAttribute("src");
      choose("before");
      names[0].hidden = views.hidden = true;
      frame.resize(width, height);
    },
  };
}
