// Recipes that were saved: a JSON file, or a PNG with the recipe in its text chunk "imatlas".

import { ApiError } from "./api.js";

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const MOST_BYTES = 2 ** 26;

/** The text that a PNG holds under a name, or null. */
function textOf(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder();
  for (let at = PNG.length; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const length = view.getUint32(at);
    const kind = decoder.decode(bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + length);
    if (kind !== "iTXt" || !decoder.decode(content.subarray(0, name.length + 1)).startsWith(`${name}\0`)) continue;
    // After the name: a flag and a method of compression, then a language and a translated name, each ended by 0.
    const language = content.indexOf(0, name.length + 3);
    const translated = content.indexOf(0, language + 1);
    return decoder.decode(content.subarray(translated + 1));
  }
  return null;
}

/** What a file says: {recipe, image, generator}. */
export async function savedRecipe(file) {
  if (file.size > MOST_BYTES) throw new ApiError("This file is too large for a recipe.");
  const bytes = new Uint8Array(await file.arrayBuffer());
  const isPng = PNG.every((byte, i) => bytes[i] === byte);
  const text = isPng ? textOf(bytes, "imatlas") : new TextDecoder().decode(bytes);
  let values = null;
  try {
    values = JSON.parse(text ?? "null");
  } catch {
    // Another file: the sentence below says so.
  }
  if (!values?.recipe?.kind) throw new ApiError(`“${file.name}” holds no recipe; choose a PNG or JSON file that was saved here.`);
  return { recipe: values.recipe, image: Number(values.image) || 0, generator: values.generator ?? null };
}
