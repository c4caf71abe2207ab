// The page of a bulk operation, kept up to date until it is over.

const AGAIN_MS = 1_500;

async function follow() {
  const part = document.querySelector("[data-part=operation]");
  if ("over" in part.dataset) return;
  if (!document.hidden && !part.contains(document.activeElement)) {
    const response = await fetch(location.href, { credentials: "same-origin", cache: "no-store" }).catch(() => null);
    if (response?.ok) {
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const other = fresh.querySelector("[data-part=operation]");
      if (other) part.replaceWith(other);
    }
  }
  setTimeout(follow, AGAIN_MS);
}

setTimeout(follow, AGAIN_MS);
