// Runs before the page is drawn, so that a remembered theme does not flash.
try {
  const kept = localStorage.getItem("imatlas-theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch {
  // Without storage, the system's preference holds.
}
