/* What a script can add to the pages about jobs: progress as it happens, and a form that knows its gateway. */
"use strict";

(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function say(text) {
    const said = document.getElementById("said");
    if (said) said.textContent = text;
  }

  /* Says something where it is read out, if it is news. */
  function tell(place, text) {
    if (place.textContent !== text) place.textContent = text;
  }

  // ---- progress: the server says that something moved, and this part of the page is fetched again

  const SOON_MS = 150, COUNTED_MS = 600, LIST_MS = 1200, SLOW_MS = 15000, FALLBACK_MS = 2000;

  function follow() {
    const place = one("[data-live]");
    if (!place || place.dataset.following === "no") return;
    const job = place.dataset.live;
    const unfinished = () => one("[data-live]").dataset.unfinished !== "no";
    let source = null, waiting = null, busy = false, again = false, held = false, timer = null, last = 0, over = false;

    /* A page that nobody sees holds no connection: a browser has six for all pages of a site. */
    function rest() {
      if (source) source.close();
      source = null;
      clearInterval(timer);
      clearTimeout(waiting);
      waiting = null;
    }

    function stop() {
      over = true;
      rest();
    }

    function listen() {
      rest();
      if (over || document.hidden) return;
      if (!window.EventSource) { fallBack(); return; }
      const events = `${document.documentElement.dataset.base}/v1/events`;
      source = new EventSource(job ? `${events}?job=${encodeURIComponent(job)}` : events);
      for (const kind of ["job", "output", "reset"]) source.addEventListener(kind, moved);
      source.addEventListener("open", moved); // whatever moved before that
      source.addEventListener("error", () => { if (source && source.readyState === EventSource.CLOSED) fallBack(); });
      timer = setInterval(moved, SLOW_MS);
    }

    /* Many events are one look, and no look begins before the one before is done. */
    function moved() {
      if (over || document.hidden) return; // who comes back looks again
      if (busy) { again = true; return; }
      if (waiting) return;
      // The counts of the list may be half a second old.
      const pause = job ? SOON_MS : Math.max(COUNTED_MS, LIST_MS - (Date.now() - last));
      waiting = setTimeout(() => { waiting = null; look(); }, pause);
    }

    async function look() {
      busy = true; again = false; last = Date.now();
      try {
        const answer = await fetch(place.dataset.at || location.href, { headers: { "X-Requested-With": "gallery" } });
        if (answer.redirected) { stop(); return; } // signed out meanwhile
        if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch {
        // Not reachable now; the next event or the clock tries again.
      } finally {
        busy = false;
      }
      if (job && !unfinished()) { stop(); all("[data-reload]").forEach((line) => { line.hidden = true; }); }
      else if (again) moved();
    }

    function replace(page) {
      const here = one("[data-live]"), fresh = one("[data-live]", page);
      if (!fresh || fresh.outerHTML === here.outerHTML) return;
      const active = here.contains(document.activeElement) ? document.activeElement : null;
      // What has no name could not be found again; it is waited until somebody has left it.
      held = Boolean(active) && !active.id;
      if (held) return;
      const opened = all("details", here).map((item) => item.open);
      const scrolled = all(".scroll, .tabs, pre", here).map((item) => item.scrollLeft);
      const before = here.dataset.status;
      here.replaceWith(document.adoptNode(fresh));
      all("details", fresh).forEach((item, n) => { item.open = opened[n] || item.open; });
      all(".scroll, .tabs, pre", fresh).forEach((item, n) => { item.scrollLeft = scrolled[n] || 0; });
      if (active) {
        const same = fresh.id === active.id ? null : document.getElementById(active.id);
        if (!same) fresh.tabIndex = -1; // it is gone: then go on from where it was
        (same || fresh).focus({ preventScroll: true });
      }
      if (job && fresh.dataset.status !== before) say(`The job is ${fresh.dataset.status}`);
      // What else tells of the job and is not in that part: credits, seeds, proof.
      const facts = one("[data-facts]"), news = one("[data-facts]", page);
      if (facts && news) facts.replaceWith(document.adoptNode(news));
      document.title = page.title;
    }

    function fallBack() {
      // Without events the page is looked at again and again while something can still happen.
      clearInterval(timer);
      timer = setInterval(moved, job ? FALLBACK_MS : 2 * FALLBACK_MS);
    }

    if (job && !unfinished()) return;
    listen();
    document.addEventListener("visibilitychange", () => { listen(); moved(); });
    document.addEventListener("focusout", () => { if (held) { held = false; moved(); } });
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    all("[data-reload]").forEach((line) => { line.hidden = true; });
  }

  // ---- forms that are sent once, however often their button is pressed

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || !("once" in form.dataset)) return;
    if (form.getAttribute("aria-busy") === "true") { event.preventDefault(); return; }
    form.setAttribute("aria-busy", "true");
    say("Sending");
  });
  window.addEventListener("pageshow", () => { all("form[data-once]").forEach((form) => form.removeAttribute("aria-busy")); });

  // ---- the submit form: what a model does not take cannot be typed, and what it costs is said

  const LABELS = { aspect_ratio: "aspect ratio", negative_prompt: "negative prompt", num_images: "number of images", seed: "seed" };

  function watchForm() {
    const form = document.getElementById("submit");
    if (!form || !form.dataset.known) return;
    const known = JSON.parse(form.dataset.known);
    const field = (name) => form.elements.namedItem(name);
    const ignoring = one('input[name="unsupported"]', form);

    function offer() {
      const gateway = known[field("gateway").value];
      const list = document.getElementById("models");
      list.replaceChildren(...(gateway ? gateway.models : []).map((model) => Object.assign(document.createElement("option"), { value: model })));
    }

    function update() {
      const gateway = known[field("gateway").value], model = field("model").value.trim();
      const listed = Boolean(gateway) && Object.hasOwn(gateway.lacks, model);
      const lacks = !gateway || !model ? [] : listed ? gateway.lacks[model] : gateway.else;
      for (const name of Object.keys(LABELS)) lacking(name, lacks.includes(name), model, listed);
      price(gateway, model);
    }

    function lacking(name, lacks, model, listed) {
      const input = field(name), place = input.closest(".field");
      const one_image = name === "num_images" && input.value === "1" && listed;
      input.disabled = lacks && !one_image && !ignoring.checked;
      place.classList.toggle("lacking", lacks);
      let note = one(".lack", place);
      if (lacks && !note) {
        note = Object.assign(document.createElement("p"), { className: "lack", id: `${name}-lack` });
        place.append(note);
      }
      if (note) {
        const why = listed ? `${model} takes no ${LABELS[name]}` : `Where ${model} takes its ${LABELS[name]} is not known; use Parameters`;
        tell(note, lacks ? `${why}${input.value ? ": it is not sent" : ""}.` : "");
        note.hidden = !lacks;
      }
    }

    function price(gateway, model) {
      const place = document.getElementById("price");
      const each = gateway && Object.hasOwn(gateway.prices, model) ? gateway.prices[model] : null;
      const number = Number(field("num_images").value) || 1;
      if (!gateway || !model) tell(place, "");
      else if (each === null) tell(place, `${field("gateway").value} publishes no price for ${model}; it says afterwards what it cost.`);
      else tell(place, `About ${each * number} credits${number > 1 ? `: ${number} images, ${each} each` : ""}, by the price list.`);
    }

    // What is not sent is kept all the same, for the page that comes if something is wrong with the rest.
    form.addEventListener("submit", () => {
      for (const name of Object.keys(LABELS)) {
        if (field(name).disabled && field(name).value) form.append(Object.assign(document.createElement("input"), { type: "hidden", name: `kept_${name}`, value: field(name).value }));
      }
    });
    form.addEventListener("input", update);
    // A model of another gateway alone would only be refused here.
    field("gateway").addEventListener("change", () => {
      const models = known[field("gateway").value]?.models ?? [], model = field("model").value.trim();
      const elsewhere = Object.values(known).some((one) => Object.hasOwn(one.lacks, model));
      if (elsewhere && !models.includes(model)) field("model").value = models[0] ?? "";
      offer();
      update();
    });
    field("model").addEventListener("change", () => {
      const model = field("model").value.trim(), having = Object.keys(known).filter((name) => Object.hasOwn(known[name].lacks, model));
      if (having.length === 1 && having[0] !== field("gateway").value) {
        field("gateway").value = having[0];
        offer();
        update();
      }
    });
    offer();
    update();
  }

  document.addEventListener("DOMContentLoaded", () => { follow(); watchForm(); });
})();
