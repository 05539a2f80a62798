// Pages of blocks that open: a link to a claim opens it, and a form filters the claims. Without this
// script everything is there, closed, and the form is not shown.
document.addEventListener("DOMContentLoaded", () => {
  const claims = [...document.querySelectorAll("details.lipkit-claim")];
  const form = document.querySelector("form.lipkit-filter");
  if (!form || !claims.length) return;
  const squares = new Map(
    [...document.querySelectorAll(".lipkit-map a")].map((a) => [a.hash.slice(1), a]),
  );
  const byId = (id) => {
    const mark = id && document.getElementById(id);
    return mark && (mark.closest("details.lipkit-claim") ||
      (mark.nextElementSibling?.matches("details.lipkit-claim") && mark.nextElementSibling));
  };
  const square = new Map([...squares].map(([id, a]) => [byId(id), a]));
  const words = new Map(claims.map((claim) => [claim, claim.textContent.toLowerCase()]));
  const output = form.querySelector("output");
  const button = form.querySelector("button");

  function filter() {
    const { verdict, paper, text } = form.elements;
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const claim of claims) {
      const fits =
        [verdict.value, paper.value].every((name) => !name || claim.classList.contains(name)) &&
        wanted.every((word) => words.get(claim).includes(word));
      claim.hidden = !fits;
      square.get(claim)?.classList.toggle("lipkit-out", !fits);
      shown += fits;
    }
    for (const section of new Set(claims.map((claim) => claim.closest("section"))))
      section.hidden = !section.querySelector("details.lipkit-claim:not([hidden])");
    output.value = `${shown} of ${claims.length} claims`;
  }

  function open() {
    const claim = byId(decodeURIComponent(location.hash.slice(1)));
    if (!claim) return;
    if (claim.hidden) {
      form.reset();
      filter();
    }
    claim.open = true;
    claim.scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  button.addEventListener("click", () => {
    const closed = claims.some((claim) => !claim.hidden && !claim.open);
    for (const claim of claims) if (!claim.hidden) claim.open = closed;
  });
  for (const claim of claims)
    claim.addEventListener("toggle", () => {
      const closed = claims.some((one) => !one.hidden && !one.open);
      button.textContent = closed ? "Open all" : "Close all";
    });
  for (const [id, a] of squares)
    a.addEventListener("click", () => location.hash.slice(1) === id && open());
  window.addEventListener("hashchange", open);
  filter();
  open();
});
