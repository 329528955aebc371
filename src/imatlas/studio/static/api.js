// The only module that talks to the server.

/** An error whose message is a sentence for people. */
export class ApiError extends Error {
  name = "ApiError";
}

// Rows are those of one atlas: requests name it, so that none goes to another that was learned since.
let atlas = "";
const about = () => `atlas=${atlas}`;

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, "X-Atlas": atlas } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The studio's server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 409) dispatchEvent(new Event("imatlas-learned-again"));
  let sentence = `The server answered ${response.status} to ${path.split("?")[0]}.`;
  try {
    sentence = (await response.json()).error || sentence;
  } catch {
    // The answer was no JSON: the sentence above has to do.
  }
  throw new ApiError(sentence);
}

const get = async (path, signal) => (await request(path, { signal, cache: "no-store" })).json();
const bytes = async (path) => (await request(path, { cache: "no-store" })).arrayBuffer();

async function post(path, body, signal) {
  const response = await request(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  return response.json();
}

const query = (parameters) => {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(kept).toString();
};

/** What the atlas is: counts, layouts, clusters, labels, columns, what can be undone. */
export async function getAtlas() {
  const answer = await get("/api/atlas");
  atlas = answer.atlas;
  return answer;
}

/** {rows: Uint32Array, positions: Float32Array of x, y pairs} of a layout. */
export async function getLayout(name) {
  const buffer = await bytes(`/api/layouts/${encodeURIComponent(name)}`);
  const n = new DataView(buffer).getUint32(0, true);
  return { rows: new Uint32Array(buffer, 4, n), positions: new Float32Array(buffer, 4 + 4 * n, 2 * n) };
}

/** One number per image. */
export const getColumn = async (name) => new Float32Array(await bytes(`/api/columns/${encodeURIComponent(name)}`));

/** A page of the list of images: {total, images}. */
export const getImages = (parameters, signal) => get(`/api/images?${query(parameters)}`, signal);

/** Everything about one image. */
export const getImage = (row, signal) => get(`/api/images/${row}`, signal);

/** The address of an image's thumbnail. */
export const thumbnail = (row) => `/api/thumbnails/${row}?${about()}`;

/** The address of an image's picture. */
export const picture = (row, side = 1600) => `/api/pictures/${row}?side=${side}&${about()}`;

/** The heat map that shows why an image is where it is, as a blob. */
export const why = async (row) => (await request(`/api/images/${row}/why?${about()}`)).blob();

/** The address of a picture of one's own. */
export const uploaded = (id) => `/api/uploads/${encodeURIComponent(id)}`;

/** A tile as an ImageBitmap, or null where the map is empty. */
export async function getTile(layout, z, x, y, signal) {
  const response = await request(`/api/tiles/${encodeURIComponent(layout)}/${z}/${x}/${y}?${about()}`, { signal });
  if (response.status === 204) return null;
  return createImageBitmap(await response.blob());
}

/** The middle of an image's thumbnail as a square ImageBitmap, as the tiles show it. */
export async function getSquare(row) {
  const whole = await createImageBitmap(await (await request(thumbnail(row))).blob());
  const side = Math.min(whole.width, whole.height);
  return createImageBitmap(whole, (whole.width - side) >> 1, (whole.height - side) >> 1, side, side);
}

/** The images most like what is described. */
export const search = (body, signal) => post("/api/search", body, signal);

/** Stores a picture of one's own for searching: {id, width, height}. */
export async function upload(file) {
  const headers = { "Content-Type": "application/octet-stream" };
  return (await request("/api/uploads", { method: "POST", headers, body: file })).json();
}

/** Makes a decision, and returns the atlas after it. */
export const decide = (body) => post("/api/decisions", body);

/** Takes the last decision back, and returns the atlas after it. */
export const undo = () => post("/api/undo", {});

/** Makes the decision taken back again, and returns the atlas after it. */
export const redo = () => post("/api/redo", {});

/** Labels predicted for all images, and the images to label next. */
export const propagate = (body) => post("/api/propagate", body);

/** The images that are unusual at this false positive rate. */
export const getOutliers = (rate, limit, signal) => get(`/api/outliers?${query({ rate, limit })}`, signal);

/** Starts the search for duplicates. */
export const findDuplicates = () => get("/api/duplicates");

/** The groups that were found, as they were reviewed since. */
export const getDuplicates = () => get("/api/duplicates/groups");

/** Moves the files of duplicates to the trash folder beside theirs: {sentences, atlas}. */
export const moveAway = (rows) => post("/api/duplicates/move", { rows });

/** Brings the files back that were moved last: {sentences, atlas}. */
export const bringBack = () => post("/api/duplicates/undo", {});

/** Starts looking for names of clusters. */
export const proposeNames = () => get("/api/words");

/** Starts looking for images of a word. */
export const findWord = (body) => post("/api/find", body);

/** Starts making new images. */
export const create = (body) => post("/api/create", body);

/** Follows a job to its end: {done: promise of the result, cancel()}. onprogress hears of every event. */
export function follow(job, onprogress) {
  const events = new EventSource(`/api/jobs/${encodeURIComponent(job)}/events`);
  const done = new Promise((resolve, reject) => {
    const fail = (sentence) => { events.close(); reject(new ApiError(sentence)); };
    events.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.state === "running") onprogress(event);
      else if (event.state === "done") { events.close(); resolve(event.result); }
      else if (event.state === "cancelled") { events.close(); reject(new DOMException("cancelled", "AbortError")); }
      else fail(event.error || "The work failed.");
    };
    events.onerror = () => { if (events.readyState === EventSource.CLOSED) fail("The connection to the work was lost."); };
  });
  const cancel = () => request(`/api/jobs/${encodeURIComponent(job)}`, {
    method: "DELETE", headers: { "Content-Type": "application/json" }, body: "{}",
  });
  return { done, cancel };
}

/** The result of an answer that is either a job's number or the result itself. */
export async function resultOf(answer, onprogress, oncancel) {
  if (!("job" in answer)) return answer.result ?? answer;
  const job = follow(answer.job, onprogress);
  oncancel?.(job.cancel);
  return job.done;
}

// Working on one picture.

const pieceAt = (id, what) => `/api/work/${encodeURIComponent(id)}/${what}`;

/** Opens a picture, {row} or {upload, name}, to work on: {id, picture, name, width, height, full, bytes, …}. */
export const openPiece = (body) => post("/api/work", body);

/** Starts finding the parts of a picture. */
export const findSegments = (id) => post(pieceAt(id, "segments"), {});

/** The hierarchy of the parts: {n, width, height, levels, parents, regions}; see the server's `packed_regions`. */
export async function getRegions(id) {
  const buffer = await bytes(pieceAt(id, "regions"));
  const [n, width, height] = new Uint32Array(buffer, 0, 3);
  const start = 16 + 12 * (2 * n - 1);
  return {
    n, width, height,
    levels: new Float64Array(buffer, 16, 2 * n - 1),
    parents: new Int32Array(buffer, 16 + 8 * (2 * n - 1), 2 * n - 1),
    regions: n <= 65536 ? new Uint16Array(buffer, start) : new Uint32Array(buffer, start),
  };
}

/** The address of the label map at a level. */
export const labelMap = (id, level) => `${pieceAt(id, "labels")}?${query({ level })}`;

/** The label map that continues strokes, as a blob; null while fewer than two labels are drawn. */
export async function continueStrokes(id, strokes, signal) {
  const response = await request(pieceAt(id, "strokes"), {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ strokes }), signal,
  });
  return response.status === 204 ? null : response.blob();
}

/** The picture with its salient object only, the rest transparent, as a blob. */
export const salientObject = async (id) => (await request(pieceAt(id, "object"))).blob();

/** Starts restoring a picture. */
export const restorePiece = (id, body) => post(pieceAt(id, "restore"), body);

/** Starts compressing a picture. */
export const compressPiece = (id, body) => post(pieceAt(id, "compress"), body);

// New images

/** What the atlas's generator can make: {name, width, height, novelty, cannot: {what: why}}. */
export const getGenerator = () => get("/api/generator");

/** The address of an image as the generator takes it. */
export const generatorInput = (row) => `/api/generator/images/${row}`;

/** What was made before: {total, creations, kept}, newest first. */
export const getCreations = (limit) => get(`/api/creations?${query({ limit })}`);

/** Brings an earlier creation back. */
export const recall = (id) => post(`/api/creations/${encodeURIComponent(id)}`, {});

/** Keeps an image of a creation, or no longer. */
export const keep = (id, image, kept) => post("/api/keep", { id, image, kept });

/** The address of an image of a creation, as it was made by this version of the generator. */
export const made = ({ id, version }, image) => `/api/creations/${encodeURIComponent(id)}/${image}?${query({ version })}`;

/** The address of all images of a creation as a video. */
export const madeVideo = ({ id, version }) => `/api/creations/${encodeURIComponent(id)}/video?${query({ version })}`;

/** At each pixel of an image that was made, the number of its source; 255 for none. */
export const madeSources = async ({ id }, image) => new Uint8Array(await bytes(`/api/creations/${encodeURIComponent(id)}/${image}/sources`));

// A folder without an atlas

/** Follows the folder and its learning; onlost is called whenever the server does not answer. */
export function followFolder(onevent, onlost) {
  const events = new EventSource("/api/folder/events");
  events.onmessage = (message) => onevent(JSON.parse(message.data));
  events.onerror = onlost;
  return events;
}

/** Starts learning, or goes on, and returns the folder after it. */
export const learn = (body) => post("/api/learn", body);

/** Stops learning, and returns the folder after it. */
export const stopLearning = () => post("/api/stop", {});

/** The address of the picture of the map, which differs from map to map. */
export const firstMap = (name) => `/api/folder/map?of=${encodeURIComponent(name)}`;

/** The address of images that the generator made while it was learned. */
export const madeSamples = (number) => `/api/folder/samples/${number}`;

// Deciding

/** Asks for an export: {id}. body: rows, or filters of a list; format. */
export const prepareExport = (body) => post("/api/export", body);

/** The address of an export that was asked for. */
export const exported = (id) => `/api/export/${encodeURIComponent(id)}?${about()}`;

/** The address of an image under a heat map of what is unusual in it. */
export const outlierHeat = (row) => `/api/outliers/${row}/heat?${about()}`;

/** Images that are left out: {rows, total, gone: [{key, is_there}]}. */
export const getLeftOut = () => get("/api/left_out");

/** What may have changed: {atlas, learned_again, revision}. */
export const getState = () => get("/api/state");
