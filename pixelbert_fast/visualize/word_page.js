"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const [rows, columns] = data.grid;
  const [height, width] = data.size;
  const cells = rows * columns;
  const words = [...document.querySelectorAll("button.word")];
  const image = find("image");
  const map = find("map");
  const cursor = find("cell");
  const colours = bytes(data.colours);
  for (const caption of data.captions) {
    caption.maps = bytes(caption.maps);
    caption.rollout = bytes(caption.rollout);
  }

  let chosen = null; // the word's button
  let values = new Float64Array(cells); // its map, as shares of its attention
  let most = 0; // the value of the lightest colour
  let pointed = null; // [row, column]

  function bytes(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  const place = (button) => [Number(button.dataset.caption), Number(button.dataset.word)];
  const percent = (share) => {
    const value = 100 * share;
    if (value > 0 && value < 0.01) return "under 0.01 %"; // less than a byte a cell can tell
    return `${value >= 9.95 ? value.toFixed(0) : value >= 0.995 ? value.toFixed(1) : Number(value.toPrecision(2))} %`;
  };

  /** The shares that a word gives to the cells, in the layer and head asked for. */
  function shares([number, word]) {
    const caption = data.captions[number];
    const found = new Float64Array(cells);
    const add = (store, scales, index, times) => {
      for (let cell = 0; cell < cells; cell++) {
        found[cell] += (store[index * cells + cell] * scales[index] * times) / 255;
      }
    };
    if (find("rollout").checked) {
      add(caption.rollout, caption.rolloutScales, word, 1);
      return found;
    }
    const every = (id, count) => {
      const asked = Number(find(id).value);
      return asked ? [asked - 1] : [...Array(count).keys()];
    };
    const layers = every("layer", data.layers);
    const heads = every("head", data.heads);
    for (const layer of layers) {
      for (const head of heads) {
        const index = (layer * data.heads + head) * caption.words + word;
        add(caption.maps, caption.scales, index, 1 / (layers.length * heads.length));
      }
    }
    return found;
  }

  /** Of each pixel of an axis: the cells before and behind it, the share of the latter, whether any is its own. */
  function places(pixels, read, count) {
    return Array.from({ length: pixels }, (_, pixel) => {
      const at = ((pixel + 0.5) / pixels) * (read / data.window);
      const between = Math.min(Math.max(at - 0.5, 0), count - 1);
      const before = Math.floor(between);
      const share = between - before;
      return [before, Math.min(before + 1, count - 1), find("smooth").checked ? share : Number(share >= 0.5), at < count];
    });
  }

  function paint(canvas, shown, full) {
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, canvas.height);
    const across = places(canvas.width, width, columns);
    const along = Array.from({ length: rows }, (_, row) =>
      Float64Array.from(across, ([left, right, share]) => {
        return shown[row * columns + left] * (1 - share) + shown[row * columns + right] * share;
      }),
    );
    const opaque = Uint8Array.from(across, ([, , , inside]) => (inside ? 255 : 0));
    const scale = full > 0 ? 255 / full : 0;
    let at = 0;
    for (const [above, below, share, inside] of places(canvas.height, height, rows)) {
      const upper = along[above];
      const lower = along[below];
      for (let column = 0; column < canvas.width; column++) {
        const value = upper[column] * (1 - share) + lower[column] * share;
        const colour = 3 * Math.min(Math.floor(value * scale + 0.5), 255);
        picture.data[at++] = colours[colour];
        picture.data[at++] = colours[colour + 1];
        picture.data[at++] = colours[colour + 2];
        picture.data[at++] = inside ? opaque[column] : 0;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  const largest = (shown) => shown.reduce((a, b) => Math.max(a, b), 0);
  const sum = (shown) => shown.reduce((a, b) => a + b, 0);

  /** Everything that follows from the word, the sliders and the switches. */
  function show() {
    if (!chosen) return;
    const rolled = find("rollout").checked;
    for (const [id, count] of [["layer", data.layers], ["head", data.heads]]) {
      const slider = find(id);
      const number = Number(slider.value);
      const said = rolled ? "all, by rollout" : number ? `${number} of ${count}` : `mean of ${count}`;
      find(`${id}-said`).textContent = said;
      slider.setAttribute("aria-valuetext", said);
      slider.disabled = rolled;
    }
    find("opacity-said").textContent = `${find("opacity").value} %`;
    find("opacity").setAttribute("aria-valuetext", find("opacity-said").textContent);
    map.style.opacity = find("opacity").value / 100;
    for (const button of words) button.setAttribute("aria-pressed", String(button === chosen));
    const maps = new Map(words.map((button) => [button, shares(place(button))]));
    const all = Math.max(...[...maps.values()].map(largest));
    const full = (button) => (find("common").checked ? all : largest(maps.get(button)));
    values = maps.get(chosen);
    most = full(chosen);
    paint(map, values, most);
    map.setAttribute("aria-label", `Attention of “${chosen.textContent}” to the image`);
    find("which").textContent = chosen.textContent;
    find("share").textContent = percent(sum(values));
    find("high").textContent = percent(most);
    strip(maps, full);
    read();
  }

  /** Small maps of all words of the caption. */
  function strip(maps, full) {
    const caption = chosen.dataset.caption;
    const own = words.filter((button) => button.dataset.caption === caption);
    const list = find("strip");
    if (list.dataset.caption !== caption) {
      list.dataset.caption = caption;
      list.replaceChildren(
        ...own.map((button) => {
          const item = document.createElement("div");
          const canvas = document.createElement("canvas");
          const long = Math.max(height, width);
          canvas.width = Math.max(1, Math.round((144 * width) / long));
          canvas.height = Math.max(1, Math.round((144 * height) / long));
          const name = document.createElement("span");
          name.textContent = button.textContent;
          item.append(canvas, name);
          item.addEventListener("click", () => choose(button));
          return item;
        }),
      );
    }
    const heat = document.createElement("canvas");
    own.forEach((button, number) => {
      const item = list.children[number];
      item.className = button === chosen ? "thumb chosen" : "thumb";
      const canvas = item.firstChild;
      heat.width = canvas.width;
      heat.height = canvas.height;
      paint(heat, maps.get(button), full(button));
      const context = canvas.getContext("2d");
      context.globalAlpha = 1;
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      context.globalAlpha = find("opacity").value / 100;
      context.drawImage(heat, 0, 0);
    });
  }

  /** What is said of the cell under the pointer or the cursor. */
  function read() {
    cursor.hidden = !pointed;
    if (!pointed) {
      find("reading").textContent = "Point at the image, or focus it and use the arrow keys, to read a cell.";
      return;
    }
    const [row, column] = pointed;
    const part = (from, count, whole) => [
      (100 * from * data.window) / whole,
      (100 * Math.min(count * data.window, whole - from * data.window)) / whole,
    ];
    const [top, tall] = part(row, 1, height);
    const [left, wide] = part(column, 1, width);
    Object.assign(cursor.style, { top: `${top}%`, height: `${tall}%`, left: `${left}%`, width: `${wide}%` });
    const value = percent(values[row * columns + column]);
    find("reading").textContent = `Row ${row + 1}, column ${column + 1}: ${value} of the attention of “${chosen.textContent}”`;
  }

  function choose(button) {
    if (button === chosen) return;
    chosen = button;
    show();
  }

  // On the way to the image a pointer crosses words that are not meant.
  const DWELL = 70; // milliseconds
  let resting = 0;
  words.forEach((button, number) => {
    button.addEventListener("pointerenter", () => {
      resting = setTimeout(() => choose(button), DWELL);
    });
    button.addEventListener("pointerleave", () => clearTimeout(resting));
    button.addEventListener("focus", () => choose(button));
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const ends = { Home: 0, End: words.length - 1 };
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (!(event.key in ends) && !(event.key in steps)) return;
      event.preventDefault();
      const next = event.key in ends ? ends[event.key] : number + steps[event.key];
      words[(next + words.length) % words.length].focus();
    });
  });

  map.addEventListener("pointermove", (event) => {
    const box = map.getBoundingClientRect();
    const row = Math.floor((((event.clientY - box.top) / box.height) * height) / data.window);
    const column = Math.floor((((event.clientX - box.left) / box.width) * width) / data.window);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    pointed = inside ? [row, column] : null;
    read();
  });
  map.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "mouse") return; // what was tapped stays
    pointed = null;
    read();
  });
  map.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [down, right] = pointed ? steps[event.key] : [0, 0];
    const [row, column] = pointed ?? [0, 0];
    pointed = [Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(column + right, 0), columns - 1)];
    read();
  });

  for (const id of ["layer", "head", "opacity", "rollout", "common", "smooth"]) {
    find(id).addEventListener("input", show);
  }
  const bar = find("bar").getContext("2d");
  for (let step = 0; step < 256; step++) {
    bar.fillStyle = `rgb(${colours.slice(3 * step, 3 * step + 3).join(",")})`;
    bar.fillRect(step, 0, 1, 1);
  }
  // The whole image is seen at once, however tall it is.
  find("stage").parentElement.style.maxWidth = `calc(80vh * ${width / height})`;
  chosen = words[data.start] ?? words[0];
  show();
  image.decode().then(show, show); // the small maps draw the image too
})();
