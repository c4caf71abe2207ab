// Copy buttons of the admin pages. The style sheet hides them until this script says that they work: a clipboard exists
// on secure origins only. Pages that are kept up to date replace their buttons, so clicks are heard at the document.

const SHOWN_MS = 2_000;

async function copy(button) {
    const label = button.querySelector("span");
    if (button.classList.contains("wfa-copied")) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const text = label.textContent;
    button.classList.add("wfa-copied");
    label.textContent = button.dataset.done;
    setTimeout(() => {
        button.classList.remove("wfa-copied");
        label.textContent = text;
    }, SHOWN_MS);
}

if (navigator.clipboard) {
    document.documentElement.classList.add("wfa-can-copy");
    document.addEventListener("click", ({ target }) => {
        const button = target.closest(".wfa-copy");
        if (button) copy(button);
    });
}

// On phones the rows of a list are cards, which have no table head: each cell has its heading at hand. Unfold, whose cells
// have a `data-label`, makes cards of its own.
document.addEventListener("DOMContentLoaded", () => {
    const list = document.querySelector("#result_list");
    if (!list || list.querySelector("[data-label]")) return;
    const headings = [...list.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    for (const row of list.tBodies[0].rows) {
        [...row.cells].forEach((cell, column) => {
            if (headings[column]) cell.dataset.heading = headings[column];
        });
    }
    document.body.classList.add("wfa-headed");
});
