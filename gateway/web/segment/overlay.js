// Drawing a picture and the mask over it.

const ACCENT = "#ff4a22";
const LONGEST = 2048; // pixels of the longer side that are drawn; phones run out of memory beyond

/** The size a picture is drawn at: its own, or less when it is very large. */
export function drawnSize(picture) {
  const scale = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
  return {
    width: Math.max(1, Math.round(picture.width * scale)),
    height: Math.max(1, Math.round(picture.height * scale)),
  };
}

function layer(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

/** Turns the service's PNG (white on black) into a canvas whose alpha is the mask. */
export async function maskLayer(png, { width, height }) {
  const bitmap = await createImageBitmap(png);
  const [canvas, context] = layer(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = pixels.data[i];
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** One colour in the shape of the mask. */
function fill(mask, colour) {
  const [canvas, context] = layer(mask.width, mask.height);
  context.drawImage(mask, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, mask.width, mask.height);
  return canvas;
}

/** One colour everywhere but in the mask. */
function fillOutside(mask, colour) {
  const [canvas, context] = layer(mask.width, mask.height);
  context.fillStyle = colour;
  context.fillRect(0, 0, mask.width, mask.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, 0, 0);
  return canvas;
}

/** A ring of the given width around the mask, outside of it. */
function outline(mask, colour, width) {
  const shape = fill(mask, colour);
  const [canvas, context] = layer(mask.width, mask.height);
  const steps = 24;
  for (let step = 0; step < steps; step++) {
    const angle = (2 * Math.PI * step) / steps;
    context.drawImage(shape, width * Math.cos(angle), width * Math.sin(angle));
  }
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, 0, 0);
  return canvas;
}

/** Draws the picture, and the mask over it when there is one. Sets the canvas's size. */
export function draw(canvas, picture, mask) {
  const { width, height } = drawnSize(picture);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  if (!mask) return;
  const stroke = Math.max(2, Math.max(width, height) / 260);
  context.drawImage(fillOutside(mask, "rgb(18 17 15 / 52%)"), 0, 0);
  context.drawImage(fill(mask, "rgb(255 74 34 / 22%)"), 0, 0);
  context.drawImage(outline(mask, "#fff", stroke * 1.6), 0, 0);
  context.drawImage(outline(mask, ACCENT, stroke), 0, 0);
}
