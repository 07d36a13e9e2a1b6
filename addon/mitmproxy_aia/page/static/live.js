// Keeps the list of servers up to date. Without it the page is the same, as of its loading.
"use strict";

(() => {
  const mark = document.getElementById("live");
  const pause = 2000; // milliseconds between two looks at a busy proxy
  const patience = 10000; // milliseconds until a proxy that is gone is tried again

  const say = (state, text) => {
    mark.dataset.state = state;
    mark.textContent = text;
  };
  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const shown = () =>
    document.hidden
      ? new Promise((resolve) =>
          document.addEventListener("visibilitychange", resolve, { once: true }))
      : null;

  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const main = document.querySelector("main");
    const key = document.activeElement && document.activeElement.id;
    for (const open of main.querySelectorAll("details[open]")) {
      const again = fresh.querySelector(`#${CSS.escape(open.id)}`);
      if (again) again.open = true;
    }
    main.replaceWith(fresh);
    if (key) document.getElementById(key)?.focus({ preventScroll: true });
  };

  const follow = async () => {
    for (;;) {
      await shown();
      try {
        const revision = document.querySelector("main").dataset.revision;
        const news = await fetch(`/changes?after=${encodeURIComponent(revision)}`);
        if (!news.ok) throw new Error(news.statusText);
        say("on", "Live");
        if ((await news.text()) !== revision) {
          // Whoever is marking a line to copy it is not to lose it.
          while (!getSelection().isCollapsed) await wait(pause);
          const page = await fetch(location.href);
          if (!page.ok) throw new Error(page.statusText);
          replace(await page.text());
        }
        await wait(pause);
      } catch {
        say("lost", "The proxy does not answer");
        await wait(patience);
      }
    }
  };

  say("on", "Live");
  follow();
})();
