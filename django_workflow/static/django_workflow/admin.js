// Copy buttons of the admin pages. They are hidden in the HTML: without JavaScript there is nothing to click.

function prepare(button) {
    const text = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = button.dataset.done;
        setTimeout(() => {
            button.textContent = text;
        }, 2000);
    });
}

// The clipboard exists on secure origins only.
if (navigator.clipboard) {
    document.addEventListener("DOMContentLoaded", () => {
        document.querySelectorAll(".wfa-copy[data-copy]").forEach(prepare);
    });
}
