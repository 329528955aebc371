// What can be made, of how many images, and with which settings: the recipes of the server in words and fields.
import { count, images } from "./dom.js";

const SEEDED = ["novelty", "seed"];

/** The tools of the view; `fields` are the settings that each recipe has. */
export const TOOLS = [
  { kind: "sample", title: "New images", least: 0, most: 16, fields: ["n", "strength", "tile", ...SEEDED],
    hint: "New images of the places of these images on the map. Without any, they come from anywhere." },
  { kind: "morph", title: "Morph", least: 2, most: 8, fields: ["frames", ...SEEDED],
    hint: "From image to image through images that do not exist. Choose two or more, in order." },
  { kind: "blend", title: "Blend", least: 2, most: 2, fields: ["n", "axis", "join", ...SEEDED],
    hint: "One image of two: where they differ, new pixels join them." },
  { kind: "panorama", title: "Panorama", least: 1, most: 8, fields: ["n", ...SEEDED],
    hint: "One wide image: like the first image on the left, like the last on the right." },
  { kind: "inpaint", title: "Fill in", least: 1, most: 1, fields: ["n", ...SEEDED],
    hint: "Paint over a part of an image; it is filled in from the images of the atlas. The first time takes a minute or two, as a model of small patches is fitted." },
  { kind: "extend", title: "Extend", least: 1, most: 1, fields: ["n", "sides", ...SEEDED],
    hint: "An image continued beyond its borders." },
  { kind: "sliders", title: "Sliders", least: 0, most: 1, fields: ["directions"],
    hint: "The main ways in which the images vary, found without labels. They start from an image, or from the mean of all." },
];

/** What a generator may lack besides tools, as people see it. */
export const LACKING = { place: "Images of a place", strength: "Variations", novelty: "Novelty", tile: "Seamless tiles" };

export const SIDES = ["top", "right", "bottom", "left"];

/** How many images a tool still needs, in a sentence; empty if it has enough. */
export function lacking(tool, n) {
  if (n >= tool.least) return "";
  return tool.least === 1 ? "Choose an image first." : n === 1 ? "Choose one more image." : "Choose two images first.";
}

function among(keys) {
  if (keys.length <= 2) return keys.join(" and ");
  return `${keys[0]} and ${count(keys.length - 1)} others`;
}

function subject(recipe) {
  const of = among(recipe.images);
  switch (recipe.kind) {
    case "sample":
      if (!recipe.images.length) return `${images(recipe.n)} from anywhere`;
      return recipe.strength < 1 ? `${count(recipe.n)} variations of ${of}` : `${images(recipe.n)} near ${of}`;
    case "morph": return `Morph of ${of}`;
    case "blend": return `Blend of ${of}`;
    case "panorama": return `Panorama of ${of}`;
    case "inpaint": return `${of} filled in`;
    case "extend": return `${of} extended`;
    default: return `Sliders of ${of || "the mean image"}`;
  }
}

/** A recipe in a few words. */
export function describe(recipe) {
  const details = [
    recipe.kind === "sample" && recipe.strength < 1 ? `strength ${recipe.strength}` : null,
    recipe.tile ? "as tiles" : null,
    recipe.novelty === null || recipe.novelty === undefined ? null : `novelty ${recipe.novelty}`,
    recipe.seed === undefined ? null : `seed ${recipe.seed}`,
  ].filter(Boolean);
  return [subject(recipe), ...details].join(", ");
}

/** A time of the server as people say it. */
export function when(seconds) {
  const past = Date.now() / 1000 - seconds;
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  const date = new Date(1000 * seconds);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString("en-US", today ? { hour: "numeric", minute: "2-digit" } : { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
}
