/* What a script can add to the pages. Without it everything still works. */
"use strict";

(() => {
  const root = document.documentElement;

  // ---- light and dark: read at once, so that no page flashes in the other one

  const kept = (() => { try { return localStorage.getItem("darkroom-theme"); } catch { return null; } })();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  function changeTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("darkroom-theme", root.dataset.theme); } catch { /* not kept, then */ }
    say(dark ? "Light" : "Dark");
  }

  // ---- helpers

  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function say(text) {
    const said = document.getElementById("said");
    if (said) said.textContent = text;
  }

  /* A picture that cannot be had: its place is kept, and its text is still there for screen readers. */
  function gone(image) {
    const place = image.closest(".thumb, .picture");
    if (place) place.classList.add("gone");
  }
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) gone(event.target);
  }, true);

  // ---- copying

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    if (!source) return;
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
      say("Copied");
    } catch {
      // Without https there is no clipboard: then it is selected, to be copied by hand.
      getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = before; }, 2000);
  }

  // ---- keys

  const typing = (element) => element instanceof HTMLElement && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));

  const scrolls = (element) => element instanceof Element && element.closest('.scroll, pre, [tabindex="0"]');

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const search = document.getElementById("q");
    if (typing(event.target)) {
      if (event.key === "Escape" && event.target === search) { search.blur(); (one("#grid a") || document.getElementById("main")).focus(); }
      return;
    }
    if (one("dialog[open]")) return;
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); }
    else if (event.key === "?" && document.getElementById("keys")) { event.preventDefault(); document.getElementById("keys").showModal(); }
    // With shift they select text, and in what scrolls by itself they scroll.
    else if (event.shiftKey || (event.key !== "Escape" && scrolls(event.target))) return;
    else if (one("#grid")) onGridKey(event);
    else if (one("[data-key]")) onLinkKey(event);
  }

  /* Links that have a key: `data-key="ArrowLeft"`. */
  function onLinkKey(event) {
    const link = one(`[data-key="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
  }

  function onGridKey(event) {
    const links = all("#grid > li > a");
    const here = links.indexOf(document.activeElement);
    let to = null;
    if (event.key === "ArrowRight") to = links[here + 1];
    else if (event.key === "ArrowLeft") to = links[here < 0 ? 0 : here - 1];
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") to = here < 0 ? links[0] : beside(links, here, event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Home" && here >= 0) to = links[0];
    else if (event.key === "End" && here >= 0) to = links[links.length - 1];
    else return;
    event.preventDefault();
    if (to) { to.focus({ preventScroll: true }); to.scrollIntoView({ block: "nearest" }); }
  }

  /* The nearest picture in the row below or above. */
  function beside(links, here, step) {
    const from = links[here].getBoundingClientRect();
    const middle = from.left + from.width / 2;
    let best = null, least = Infinity, row = null;
    for (let at = here + step; at >= 0 && at < links.length; at += step) {
      const box = links[at].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < 4) continue;
      if (row === null) row = box.top;
      if (Math.abs(box.top - row) > 4) break;
      const away = Math.abs(box.left + box.width / 2 - middle);
      if (away < least) { least = away; best = links[at]; }
    }
    return best;
  }

  // ---- more pictures as one scrolls

  const MOST = 1200; // after so many on one page, the link to the next page is for following

  function watchGrid() {
    const grid = document.getElementById("grid");
    if (!grid || !("IntersectionObserver" in window)) return;
    let busy = false;
    const watcher = new IntersectionObserver((seen) => { if (seen.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: "1500px 0px" });
    const pager = () => one(".pager[data-more]");
    const look = () => { watcher.disconnect(); if (pager() && one('a[rel="next"]', pager())) watcher.observe(pager()); };

    async function more() {
      const next = pager() && one('a[rel="next"]', pager());
      if (busy || !next || grid.children.length >= MOST) return;
      busy = true;
      pager().setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(next.href, { headers: { "X-Darkroom-More": "1" } });
        if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const found = all("#grid > li", page);
        if (!found.length) throw new Error("no pictures");
        grid.append(...found.map((item) => document.adoptNode(item)));
        const following = one(".pager[data-more] a[rel=next]", page);
        if (following) next.href = following.href; else next.remove();
        say(`${grid.children.length} pictures shown`);
      } catch {
        // The link stays, and leads to the same pictures, or to the page of signing in.
        watcher.disconnect();
        if (pager()) pager().removeAttribute("aria-busy");
        return;
      } finally {
        busy = false;
      }
      pager().removeAttribute("aria-busy");
      look();
    }
    look();
  }

  // ---- which picture is this: its digest is made here, and only the digest is sent

  async function findFile(form) {
    const file = one('input[type="file"]', form).files[0];
    if (!file) return;
    say("Looking at the picture");
    const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
    const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    location.assign(document.documentElement.dataset.base + "/find?" + new URLSearchParams({ sha256: hex, name: file.name.slice(0, 200) }));
  }

  function watchFind() {
    const form = document.getElementById("find");
    // Without https there is no digest in the browser; then the form sends the file.
    if (!form || !window.crypto || !crypto.subtle) return;
    form.addEventListener("submit", (event) => { event.preventDefault(); findFile(form).catch(() => form.submit()); });
    one('input[type="file"]', form).addEventListener("change", () => form.requestSubmit());
  }

  // ---- begin

  document.addEventListener("DOMContentLoaded", () => {
    all("[data-action], [data-copy]").forEach((button) => { button.hidden = false; });
    all("img").forEach((image) => { if (image.complete && image.naturalWidth === 0 && image.currentSrc) gone(image); });
    document.addEventListener("click", (event) => {
      const button = event.target instanceof Element && event.target.closest("button");
      if (!button) return;
      if (button.dataset.copy) copy(button);
      if (button.dataset.action === "theme") changeTheme();
      if (button.dataset.action === "keys") document.getElementById("keys").showModal();
    });
    document.addEventListener("keydown", onKey);
    watchGrid();
    watchFind();
  });
})();
