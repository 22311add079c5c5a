"use strict";
// Shows one page of the cards that pass the filters. Without it every card is shown.
const PAGE = 25;
const cards = [...document.querySelectorAll("article")];
const list = document.getElementById("cards");
const field = (name) => document.getElementById(name);
const texts = new Map(); // of a card, in lower case: made when a search first asks for it
let page = 0;

function textOf(card) {
  if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
  return texts.get(card);
}

function passes(card) {
  const wanted = (name, attribute) => !field(name) || !field(name).value || card.dataset[attribute] === field(name).value;
  if (!wanted("group", "group") || !wanted("outcome", "outcome") || !wanted("change", "change")) return false;
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => textOf(card).includes(word));
}

const number = (card, name) => (card.dataset[name] === "" ? NaN : Number(card.dataset[name]));
const orders = {
  file: (a, b) => number(a, "place") - number(b, "place"),
  low: (a, b) => compared(number(a, "score"), number(b, "score")),
  high: (a, b) => compared(number(b, "score"), number(a, "score")),
  spread: (a, b) => compared(number(b, "spread"), number(a, "spread")),
  long: (a, b) => number(b, "length") - number(a, "length"),
};

function compared(a, b) { // what has no number comes last
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a - b;
}

function show() {
  const found = cards.filter(passes).sort((a, b) => orders[field("order").value](a, b) || orders.file(a, b));
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(Math.max(0, page), pages - 1);
  const shown = found.slice(page * PAGE, (page + 1) * PAGE);
  for (const card of cards) card.hidden = true;
  for (const card of shown) {
    card.hidden = false;
    list.append(card);
  }
  field("count").textContent = `${found.length.toLocaleString("en")} of ${cards.length.toLocaleString("en")}, page ${page + 1} of ${pages}`;
  field("back").disabled = page === 0;
  field("next").disabled = page === pages - 1;
}

function turn(by) {
  page += by;
  show();
  list.scrollIntoView();
}

for (const control of document.querySelectorAll(".tools input, .tools select")) {
  control.addEventListener("input", () => {
    page = 0;
    show();
  });
}
field("back").addEventListener("click", () => turn(-1));
field("next").addEventListener("click", () => turn(1));
document.querySelector(".tools").hidden = false;
show();
