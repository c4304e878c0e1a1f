// Keeps the page for visits without a network. A version is kept whole or not at all: its files are in a folder of its
// own, in which nothing ever changes, and this worker is not installed before it has all of them.
const VERSION = "{{ version }}";
const FILES = {{ files | tojson }};
const { scope } = self.registration;
const CACHE = `copier-fastapi ${scope} ${VERSION}`;
// Milliseconds that the network may take to begin with the page.
const PATIENCE = 3000;

self.addEventListener("install", (event) => event.waitUntil(keep()));

self.addEventListener("activate", (event) => event.waitUntil(removeOthers()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const isPage = [scope, `${scope}index.html`].includes(origin + pathname);
  if (request.mode === "navigate" && isPage) event.respondWith(newest(request));
  else if (request.url.startsWith(`${scope}${VERSION}/`)) event.respondWith(kept(request));
});

async function keep() {
  const cache = await caches.open(CACHE);
  try {
    for (const file of FILES) await cache.put(file, await load(file));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

// The browser has what the page loaded before, at whatever age. Where that is an error, the host has the file by now.
async function load(file) {
  const before = await fetch(file, { cache: "force-cache" });
  const response = before.ok ? before : await fetch(file, { cache: "reload" });
  if (!response.ok) throw new Error(`${file} can't be loaded: ${response.status}`);
  return response;
}

async function removeOthers() {
  for (const name of await caches.keys()) {
    if (name.startsWith(`copier-fastapi ${scope} `) && name !== CACHE) await caches.delete(name);
  }
}

// The newest page shows what the command writes. The kept one is for visits without a network, or with a slow one.
async function newest(request) {
  const asked = fetch(request, { cache: "no-cache" });
  const slow = new Promise((_, reject) => setTimeout(reject, PATIENCE));
  try {
    return await Promise.race([asked, slow]);
  } catch {
    const shell = await found(`${VERSION}/shell.html`);
    // Without the address of the shell, which is not that of the page.
    return shell ? new Response(shell.body, { headers: shell.headers }) : asked;
  }
}

async function kept(request) {
  return (await found(request)) ?? fetch(request);
}

function found(request) {
  return caches.match(request, { cacheName: CACHE, ignoreVary: true });
}
