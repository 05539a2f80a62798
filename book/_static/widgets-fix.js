// Makes ipywidgets work, and be named, in a page without a kernel.
// Load this file without `defer`: point 1 must run before the theme's Font Awesome.

// 1. Font Awesome turns every <i> that appears later into an <svg>; the Play widget then fails
//    when it looks for its <i>. Only the icons that are in the page at loading need it.
window.FontAwesomeConfig = { observeMutations: false };

// 2. ipywidgets calls MathJax 2's Hub for every label; MathJax 3 has none and the call throws.
document.addEventListener("DOMContentLoaded", () => {
  const mathjax = window.MathJax;
  if (mathjax && mathjax.startup && !mathjax.Hub) {
    mathjax.Hub = {
      Queue: (call) => mathjax.startup.promise.then(() => mathjax.typesetPromise([call[2]])),
    };
  }
});

// 3. Names for the controls that ipywidgets leaves without one.
function nameControls(root) {
  for (const handle of root.querySelectorAll(".noUi-handle")) {
    const slider = handle.closest(".widget-slider");
    const label = slider && slider.querySelector(".widget-label");
    const readout = slider && slider.querySelector(".widget-readout");
    if (label) setAttribute(handle, "aria-label", label.textContent.trim() || "slider");
    if (readout) setAttribute(handle, "aria-valuetext", readout.textContent.trim());
  }
  for (const play of root.querySelectorAll(".widget-play")) {
    const names = ["Play or pause", "Stop and go back to the start", "Repeat"];
    play.querySelectorAll("button").forEach((b, i) => setAttribute(b, "aria-label", names[i]));
  }
}

function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

window.addEventListener("load", () => {
  if (!document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) return;
  const main = document.querySelector("main") || document.body;
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      nameControls(main);
    });
  }).observe(main, { childList: true, characterData: true, subtree: true });
  nameControls(main);
});
