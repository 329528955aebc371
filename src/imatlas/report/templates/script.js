"use strict";
// The page works without scripts: this adds the theme switch, the current section, and navigation on the map.
const root = document.documentElement;
const data = JSON.parse(document.getElementById("data").textContent);
const dialog = document.getElementById("cell");
const maps = [...document.querySelectorAll("[data-map]")].map(navigable);

function theme() {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    try { localStorage.setItem("imatlas-theme", next); } catch {}
  });
}

function markSection() {
  const nav = document.querySelector(".bar nav");
  const links = new Map([...nav.querySelectorAll("a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]));
  const sections = [...document.querySelectorAll("main section")];
  const inView = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) inView.add(entry.target);
      else inView.delete(entry.target);
    }
    const current = links.get(sections.find((section) => inView.has(section))?.id);
    if (!current || current.hasAttribute("aria-current")) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    current.setAttribute("aria-current", "true");
    nav.scrollLeft = current.offsetLeft - nav.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2;
  }, { rootMargin: "-20% 0px -65% 0px" });
  for (const section of sections) observer.observe(section);
}

function pictureOf(id) {
  return data.pictures[id] ?? document.getElementById(id).querySelector("image").getAttribute("href");
}

function words(count) {
  return count === 1 ? "1 image" : `${count.toLocaleString("en")} images`;
}

function navigable(figure) {
  const nodes = [...figure.querySelectorAll(".cell")];
  const byPlace = new Map(nodes.map((node) => [`${node.dataset.row},${node.dataset.column}`, node]));
  const cells = new Map(data.maps[figure.dataset.map].map((cell) => [`${cell.row},${cell.column}`, cell]));
  const ring = figure.querySelector(".ring");
  const status = figure.querySelector(".map-status");
  const idle = status.textContent;
  let current = nodes.find((node) => !node.classList.contains("empty")) ?? nodes[0];

  function point(node) {
    ring.toggleAttribute("hidden", !node);
    if (node) ring.setAttribute("transform", node.getAttribute("transform").replace(/scale.*/, ""));
    status.textContent = node ? node.getAttribute("aria-label") : idle;
  }
  function choose(node) {
    current.tabIndex = -1;
    current = node;
    current.tabIndex = 0;
    point(node);
  }
  function step(key) {
    const [row, column] = [Number(current.dataset.row), Number(current.dataset.column)];
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    return byPlace.get(`${row + down},${column + right}`);
  }
  function open(node) {
    const cell = cells.get(`${node.dataset.row},${node.dataset.column}`);
    if (!cell) return;
    const cluster = cell.name && ` ${cell.name[0].toUpperCase()}${cell.name.slice(1)}.`;
    const part = cell.members.length && cell.members.length < cell.count ? ` ${cell.members.length} of them:` : "";
    dialog.querySelector("h2").textContent = `Row ${cell.row}, column ${cell.column}`;
    dialog.querySelector(".cell-about").textContent =
      cell.count ? `${words(cell.count)}.${cluster}${part}` : `No images.${cluster}`;
    dialog.querySelector(".cell-members").replaceChildren(...cell.members.map(([key, id]) => {
      const item = document.createElement("li");
      const image = new Image();
      image.src = pictureOf(id);
      image.alt = key;
      const name = document.createElement("span");
      name.textContent = key;
      item.append(image, name);
      return item;
    }));
    dialog.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
    dialog.onkeydown = navigate;
    dialog.onclose = () => node.focus(); // the browser would restore the focus to the first cell
  }
  function navigate(event) {
    if (event.key.startsWith("Arrow")) {
      const node = step(event.key);
      event.preventDefault();
      if (!node) return;
      choose(node);
      if (dialog.open) open(node);
      else node.focus();
    } else if (!dialog.open && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      open(current);
    }
  }
  function highlight(cluster) {
    figure.classList.toggle("dim", cluster !== null);
    for (const node of figure.querySelectorAll(".lattice [data-cluster]")) {
      node.classList.toggle("lit", node.dataset.cluster === cluster);
    }
  }

  for (const node of nodes) {
    node.tabIndex = -1;
    node.querySelector("title").remove(); // the line below the map shows it without a delay
    node.addEventListener("pointerenter", () => point(node));
    node.addEventListener("focus", () => choose(node));
    node.addEventListener("click", () => { choose(node); open(node); });
  }
  if (current) current.tabIndex = 0;
  const lattice = figure.querySelector(".lattice");
  lattice.addEventListener("keydown", navigate);
  lattice.addEventListener("pointerleave", () => point(lattice.contains(document.activeElement) ? current : null));
  lattice.addEventListener("focusout", () => { if (!dialog.open) point(null); });

  const chips = [...figure.querySelectorAll(".legend li")];
  for (const chip of chips) {
    chip.tabIndex = 0;
    chip.setAttribute("role", "button");
    chip.setAttribute("aria-pressed", "false");
    const press = () => {
      const on = chip.getAttribute("aria-pressed") !== "true";
      for (const other of chips) other.setAttribute("aria-pressed", String(on && other === chip));
      highlight(on ? chip.dataset.cluster : null);
    };
    chip.addEventListener("click", press);
    chip.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); press(); }
    });
  }
  if (chips.length) chips[0].parentElement.setAttribute("role", "group");
  return figure;
}

theme();
markSection();
for (const input of document.querySelectorAll(".compare input")) {
  const move = () => input.parentElement.style.setProperty("--at", `${input.value}%`);
  input.addEventListener("input", move);
  move();
}
if (dialog) {
  dialog.querySelector("[data-do=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
