/** Finished requests with their sounds, in the browser's own database. */

const NAME = "unison-audio-studio";
const STORE = "entries";

function done(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}

let opened;

function open() {
  if (!opened) {
    const request = indexedDB.open(NAME, 1);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore(STORE, { keyPath: "id" });
    });
    opened = done(request);
    opened.catch(() => (opened = undefined));
  }
  return opened;
}

async function store(mode) {
  return (await open()).transaction(STORE, mode).objectStore(STORE);
}

/** All entries, newest first. */
export async function allEntries() {
  const entries = await done((await store("readonly")).getAll());
  return entries.sort((one, other) => other.created - one.created);
}

export async function addEntry(entry) {
  await done((await store("readwrite")).put(entry));
}

export async function deleteEntry(id) {
  await done((await store("readwrite")).delete(id));
}

export async function clearEntries() {
  await done((await store("readwrite")).clear());
}
