// What others change while a page is open: decisions of another tab, and an atlas that was learned again.
import * as api from "./api.js";
import { byId, guarded, say } from "./dom.js";
import { state, on, setAtlas } from "./state.js";

const EVERY = 5000; // milliseconds between two looks, while the page is seen

function tell() {
  const bar = byId("learned-again");
  if (!bar.hidden) return;
  bar.hidden = false;
  say(byId("learned-again-text").textContent);
}

async function look() {
  if (document.visibilityState !== "visible") return;
  let now;
  try {
    now = await api.getState();
  } catch {
    return; // whatever a person does next will say so
  }
  if (now.learned_again) tell();
  else if (now.revision > state.atlas.revision) {
    await guarded(async () => {
      const atlas = await api.getAtlas();
      if (atlas.revision > state.atlas.revision) setAtlas(atlas);
    });
  }
}

/** Follows the server as long as the page is seen. */
export function startFollowing() {
  byId("learned-again-reload").addEventListener("click", () => {
    // The open image may be another one in the new atlas.
    location.hash = `#/${state.route.view}`;
    location.reload();
  });
  on("atlas", () => { if (state.atlas.learned_again) tell(); });
  addEventListener("imatlas-learned-again", tell);
  addEventListener("focus", look);
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY);
}
