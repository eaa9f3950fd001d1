// The viewer's page. NiiVue draws the planes, filled masks and 3-D. This script draws outlines,
// captions and the panel.
//
// Cases come from the server of this page, or from the page itself if it is a self-contained file.
// Planes follow the radiological convention: the patient's right is on the left, and sagittal
// planes have the front on the left. Voxel indices are in RAS order (to the right, to the front,
// upwards), unless they are called stored.
"use strict";

(() => {
  const AXIAL = 0,
    CORONAL = 1,
    SAGITTAL = 2,
    RENDER = 4; // NiiVue's numbers of slice types
  const AXIS = [2, 1, 0]; // the RAS axis perpendicular to each plane
  const PLANE = ["axial", "coronal", "sagittal"];
  const EDGES = ["RLAP", "RLSI", "APSI"]; // directions at the left, right, top and bottom edges
  const DASHES = [[], [6, 4], [1.5, 3.5], [9, 3, 2, 3]]; // line style of the first, second ... mask
  const FROM = [160, 15]; // 3-D view: from the front, slightly from the patient's left and above
  const MOST_ROWS = 20; // with more structures, those that are in no mask are only counted
  const STEP = 100; // steps of an opacity slider
  const GUARD = 60; // see colourTable

  const $ = (id) => document.getElementById(id);
  const boot = JSON.parse($("boot").textContent);
  const isAlone = $("case-0") !== null;
  const asked = new URLSearchParams(location.hash.slice(1));

  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairWidth: 0,
    isOrientationTextVisible: false,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    dragAndDropEnabled: false,
    loadingText: "",
    logLevel: "error",
    showLegend: false,
    smoothDrawing: 1,
    mouseEventConfig: {
      leftButton: {
        primary: niivue.DRAG_MODE.crosshair,
        withShift: niivue.DRAG_MODE.pan,
        withCtrl: niivue.DRAG_MODE.pan,
      },
      rightButton: niivue.DRAG_MODE.windowing,
      centerButton: niivue.DRAG_MODE.pan,
    },
  });

  const state = {
    at: -1,
    facts: null,
    channel: 0,
    view: "all",
    window: 0,
    plane: AXIAL,
    smooth: true,
    cross: true,
    body: false,
    kept: new Map(),
    masks: [],
    contours: new Map(),
    solid: "",
  };

  // ---- loading data ----

  function bytesOf(base64) {
    const text = atob(base64),
      bytes = new Uint8Array(text.length);
    for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
    return bytes.buffer;
  }

  async function fetched(path, kind) {
    const answer = await fetch(path);
    if (!answer.ok) {
      let why = `the server answered ${answer.status}`;
      try {
        why = (await answer.json()).error || why;
      } catch {
        /* no JSON: keep the status code */
      }
      throw new Error(why);
    }
    return kind === "json" ? answer.json() : answer.arrayBuffer();
  }

  const source = isAlone
    ? {
        facts: async (n) => JSON.parse($(`case-${n}`).textContent),
        image: async (n, channel) => bytesOf(state.facts.files.images[channel]),
        mask: async (n, number) => bytesOf(state.facts.files.masks[number]),
      }
    : {
        facts: (n) => fetched(`case/${n}.json`, "json"),
        image: (n, channel) => fetched(`case/${n}/image/${channel}.nii.gz`),
        mask: (n, number) => fetched(`case/${n}/mask/${number}.nii.gz`),
      };

  // ---- cases ----

  let loads = 0;

  async function show(n) {
    const mine = ++loads;
    n = Math.min(Math.max(n, 0), boot.cases.length - 1);
    showStatus(`Reading ${boot.cases[n].id}`);
    delete document.documentElement.dataset.ready;
    try {
      const facts = await source.facts(n);
      if (mine !== loads) return;
      Object.assign(state, {
        at: n,
        facts,
        channel: Math.min(state.channel, facts.channels.length - 1),
        masks: facts.masks.map(maskState),
        contours: new Map(),
        solid: "",
      });
      paintPanel();
      const image = await imageOf(n);
      const masks = [];
      for (let m = 0; m < facts.masks.length; m++) {
        masks.push(await volumeOf(await source.mask(n, m), { colormap: "gray" }));
      }
      if (mine !== loads) return;
      place(image, masks);
      showStatus("");
      document.documentElement.dataset.ready = String(n);
    } catch (error) {
      if (mine !== loads) return;
      Object.assign(state, { at: n, facts: null, masks: [] });
      paintPanel();
      put([]);
      showStatus(`${boot.cases[n].id}: ${error.message}`, true);
      document.documentElement.dataset.ready = "failed";
    }
  }

  const volumeOf = (buffer, more) =>
    niivue.NVImage.loadFromUrl({ url: "volume.nii.gz", name: "volume.nii.gz", buffer, ...more });

  async function imageOf(n) {
    const [low, high] = limits();
    return volumeOf(await source.image(n, state.channel), {
      colormap: "gray",
      cal_min: low,
      cal_max: high,
    });
  }

  function place(image, masks) {
    masks.forEach((volume, m) => {
      state.masks[m].volume = volume;
    });
    put([image, ...masks]);
    nv.scene.crosshairPos = state.facts.look.slice();
    nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    colour();
    arrange();
    paintWindow();
    nv.createOnLocationChange();
  }

  /** Show exactly these volumes. */
  function put(volumes) {
    nv.volumes = [];
    nv.overlays = [];
    nv.back = null;
    volumes.forEach((volume) => nv.addVolume(volume));
    nv.drawScene();
  }

  /** How a mask is shown; settings are kept for masks of the same name in other cases. */
  function maskState(mask, number) {
    if (!state.kept.has(mask.name))
      state.kept.set(mask.name, { on: true, filled: null, opacity: 0.5, hidden: new Set() });
    return { number, volume: null, table: mask, look: state.kept.get(mask.name) };
  }

  /** By default the last mask is filled and all others are outlined. */
  const isFilled = (mask) => mask.look.filled ?? mask.number === state.masks.length - 1;
  const isSeen = (mask, one) => mask.look.on && !mask.look.hidden.has(one.name);

  // ---- colours ----

  /**
   * Colour table of a mask. It begins below 0, because NiiVue raises every value above the lowest
   * entry to at least the second 128th of the table: with more than 127 colours, the background
   * would be painted.
   */
  function colourTable(mask) {
    const shown = mask.table.structures,
      last = Math.max(1, ...shown.map((one) => one.index)),
      first = -Math.ceil((last + 2) / GUARD);
    const table = { R: [0, 0], G: [0, 0], B: [0, 0], A: [0, 0], I: [first, 0] };
    if (!shown.some((one) => one.index === last)) {
      // the table must reach its last value
      for (const key of "RGBA") table[key].push(0);
      table.I.push(last);
    }
    for (const one of shown) {
      ["R", "G", "B"].forEach((key, c) => table[key].push(one.colour[c]));
      table.A.push(isSeen(mask, one) ? 255 : 0);
      table.I.push(one.index);
    }
    return table;
  }

  /** Apply the panel's settings to NiiVue's volumes. */
  function colour() {
    for (const mask of state.masks) {
      if (mask.volume === null) continue;
      mask.volume.setColormapLabel(colourTable(mask));
      mask.volume.opacity = isFilled(mask) && mask.look.on ? mask.look.opacity : 0;
    }
    if (!nv.volumes.length) return;
    nv.updateGLVolume();
    fillSolids();
    nv.drawScene();
  }

  /** Masks shown in 3-D: the filled ones, or the outlined ones if none is filled. */
  function solidMasks() {
    const on = state.masks.filter((mask) => mask.look.on && mask.volume !== null),
      filled = on.filter(isFilled);
    return filled.length ? filled : on;
  }

  /**
   * Give NiiVue the bitmap from which it draws smooth, lit surfaces in 3-D. The bitmap holds 255
   * values, so with more structures some share a colour.
   */
  function fillSolids() {
    const tables = solidMasks().map((mask) => [
      mask,
      mask.table.structures.filter((one) => isSeen(mask, one)),
    ]);
    const key = JSON.stringify(
      tables.map(([mask, shown]) => [mask.number, shown.map((one) => one.index)]),
    );
    if (key === state.solid || !state.masks.length || isFlat()) return;
    state.solid = key;
    nv.createEmptyDrawing();
    const lut = new Uint8ClampedArray(1024);
    let used = 0;
    for (const [mask, shown] of tables) {
      const as = new Uint8Array(1 + Math.max(0, ...mask.table.structures.map((one) => one.index)));
      for (const one of shown) {
        as[one.index] = 1 + (used++ % 255);
        lut.set([...one.colour, 255], 4 * as[one.index]);
      }
      addSolid(nv.drawBitmap, mask.volume, as);
    }
    nv.drawLut = { lut, labels: Array(256).fill("") };
    nv.refreshColormaps();
    nv.refreshDrawing(false);
  }

  /** Write a mask's voxels into ``bitmap`` in RAS order; ``as`` maps mask values to its values. */
  function addSolid(bitmap, volume, as) {
    const [, width, height, depth] = volume.dimsRAS,
      [a, b, c] = volume.img2RASstep,
      stored = volume.img;
    const base = volume.img2RASstart[0] + volume.img2RASstart[1] + volume.img2RASstart[2];
    for (let z = 0, n = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0, at = base + y * b + z * c; x < width; x++, at += a, n++) {
          const value = as[stored[at]];
          if (value) bitmap[n] = value;
        }
      }
    }
  }

  let pending = 0;
  function later(what) {
    // sliders move faster than a volume can be coloured
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(what);
  }

  // ---- window ----

  function limits() {
    const chosen = state.facts.channels[state.channel].windows;
    const one = chosen[Math.min(state.window, chosen.length - 1)];
    return [one.low, one.high];
  }

  function setWindow(low, high) {
    if (!nv.volumes.length || !(high > low)) return;
    nv.volumes[0].cal_min = low;
    nv.volumes[0].cal_max = high;
    nv.updateGLVolume();
    paintWindow();
  }

  function chooseWindow(n) {
    state.window = n;
    setWindow(...limits());
  }

  // ---- tiles ----

  const isFlat = () => state.facts !== null && state.facts.shape.includes(1);

  /** The plane of a single slice. */
  function flatPlane() {
    const dims = nv.volumes.length ? nv.volumes[0].dimsRAS.slice(1) : [2, 2, 1];
    return [AXIAL, CORONAL, SAGITTAL].find((plane) => dims[AXIS[plane]] === 1) ?? AXIAL;
  }

  function tiles() {
    const whole = [0, 0, 1, 1],
      one = { axial: AXIAL, coronal: CORONAL, sagittal: SAGITTAL, "3-D": RENDER }[state.view];
    if (isFlat()) return [{ sliceType: flatPlane(), position: whole }];
    if (one !== undefined) return [{ sliceType: one, position: whole }];
    return [
      [AXIAL, 0, 0],
      [CORONAL, 0.5, 0],
      [SAGITTAL, 0, 0.5],
      [RENDER, 0.5, 0.5],
    ].map(([sliceType, left, top]) => ({
      sliceType,
      position: [left + 0.002, top + 0.002, 0.496, 0.496],
    }));
  }

  function arrange() {
    nv.setCustomLayout(tiles());
  }

  // ---- drawing over NiiVue ----

  const draw = nv.drawScene.bind(nv);
  nv.drawScene = () => {
    sharpMasks();
    const out = draw();
    drawLines();
    return out;
  };

  // In 3-D, masks are the surfaces of ``fillSolids``, so the overlay texture of the planes is
  // replaced by an empty one while NiiVue draws.
  const draw3D = nv.draw3D.bind(nv);
  nv.draw3D = (...given) => {
    const gl = nv.gl,
      shader = nv.renderShader,
      masked = solidMasks().length > 0 && nv.volumes.length > 1;
    shader.use(gl);
    gl.uniform1f(shader.uniforms.backOpacity, state.body || !masked ? 1 : 0);
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_3D, nothing());
    nv.drawOpacity = masked ? 1 : 0;
    const out = draw3D(...given);
    nv.drawOpacity = 0;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_3D, nv.overlayTexture);
    return out;
  };

  let empty = null;

  /** A texture of one transparent voxel. */
  function nothing() {
    if (empty !== null) return empty;
    const gl = nv.gl;
    empty = gl.createTexture();
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_3D, empty);
    gl.texStorage3D(gl.TEXTURE_3D, 1, gl.RGBA8, 1, 1, 1);
    return empty;
  }

  /** Masks in the planes are never interpolated, even if the scan is. */
  function sharpMasks() {
    if (nv.volumes.length < 2) return;
    const gl = nv.gl;
    gl.activeTexture(gl.TEXTURE2); // NiiVue keeps all masks in this texture
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  function drawLines() {
    const canvas = $("lines"),
      context = canvas.getContext("2d");
    if (canvas.width !== nv.gl.canvas.width || canvas.height !== nv.gl.canvas.height) {
      canvas.width = nv.gl.canvas.width;
      canvas.height = nv.gl.canvas.height;
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!nv.volumes.length || state.facts === null) return;
    const dpr = canvas.width / Math.max(1, canvas.clientWidth);
    for (const tile of nv.screenSlices) {
      if (tile.axCorSag === RENDER && state.facts.placed) drawCompass(context, tile, dpr);
      if (tile.axCorSag > SAGITTAL || tile.sliceFrac === Infinity) continue;
      const slice = Math.min(
        Math.max(Math.floor(nv.scene.crosshairPos[AXIS[tile.axCorSag]] * length(tile.axCorSag)), 0),
        length(tile.axCorSag) - 1,
      );
      drawOutlines(context, tile, slice, dpr);
      if (state.cross) drawCross(context, tile, dpr);
      drawWords(context, tile, slice, dpr);
    }
  }

  const length = (plane) => nv.volumes[0].dimsRAS[1 + AXIS[plane]];

  /** Write the slice number, and the directions at the edges of the plane. */
  function drawWords(context, tile, slice, dpr) {
    const [left, top, width, height] = tile.leftTopWidthHeight,
      n = length(tile.axCorSag),
      placed = state.facts.placed;
    if (width < 120 * dpr || height < 60 * dpr) return;
    context.font = `${12 * dpr}px system-ui, sans-serif`;
    context.lineWidth = 3 * dpr;
    context.lineJoin = "round";
    context.strokeStyle = "rgb(0 0 0 / 75%)";
    const write = (text, x, y, align, baseline, colour) => {
      Object.assign(context, { textAlign: align, textBaseline: baseline, fillStyle: colour });
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    const edge = 7 * dpr,
      right = left + width,
      bottom = top + height;
    const name = placed ? PLANE[tile.axCorSag] : "slice",
      words = width < 260 * dpr ? `${slice + 1}/${n}` : `${name} ${slice + 1} of ${n}`;
    write(
      n > 1 ? words : placed ? name : "",
      left + edge,
      bottom - edge,
      "left",
      "bottom",
      "#b4bcc8",
    );
    if (!placed) return;
    const [west, east, north, south] = EDGES[tile.axCorSag],
      middle = [left + width / 2, top + height / 2];
    write(west, left + edge, middle[1], "left", "middle", "#dfe4ea");
    write(east, right - edge, middle[1], "right", "middle", "#dfe4ea");
    write(north, middle[0], top + edge, "center", "top", "#dfe4ea");
    write(south, middle[0], bottom - edge, "center", "bottom", "#dfe4ea");
  }

  /** Letters that turn with the 3-D view; those that point away from the viewer are darker. */
  function drawCompass(context, tile, dpr) {
    const [left, top, , height] = tile.leftTopWidthHeight,
      radius = 22 * dpr,
      x = left + 34 * dpr,
      y = top + height - 34 * dpr;
    const m = nv.calculateModelMatrix(nv.scene.renderAzimuth, nv.scene.renderElevation);
    Object.assign(context, {
      font: `${11 * dpr}px system-ui, sans-serif`,
      textAlign: "center",
      textBaseline: "middle",
      lineWidth: dpr,
    });
    const ends = [0, 1, 2].flatMap((axis) => {
      const size = Math.hypot(m[4 * axis], m[4 * axis + 1], m[4 * axis + 2]),
        at = [0, 1, 2].map((c) => m[4 * axis + c] / size);
      return [1, -1].map((sign) => ({
        letter: "RASLPI"[sign > 0 ? axis : 3 + axis],
        at: at.map((c) => sign * c),
      }));
    });
    for (const { letter, at } of ends.sort((one, other) => other.at[2] - one.at[2])) {
      // farthest first; NiiVue's third axis points away
      context.globalAlpha = 0.35 + 0.3 * (1 - at[2]);
      context.strokeStyle = "#566070";
      context.fillStyle = "#dfe4ea";
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + 0.66 * radius * at[0], y - 0.66 * radius * at[1]);
      context.stroke();
      if (Math.hypot(at[0], at[1]) > 0.3)
        context.fillText(letter, x + radius * at[0], y - radius * at[1]);
    }
    context.globalAlpha = 1;
  }

  function drawCross(context, tile, dpr) {
    const [left, top, width, height] = tile.leftTopWidthHeight,
      gap = 9 * dpr;
    const [u, v] = [0, 1, 2].filter((axis) => axis !== AXIS[tile.axCorSag]),
      at = nv.scene.crosshairPos,
      dims = nv.volumes[0].dimsRAS;
    const point = matrixOf(tile).transformPoint({ x: at[u] * dims[1 + u], y: at[v] * dims[1 + v] });
    const x = Math.round(point.x) + 0.5,
      y = Math.round(point.y) + 0.5;
    if (x < left || y < top || x > left + width || y > top + height) return;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [
      [left, y, x - gap, y],
      [x + gap, y, left + width, y],
      [x, top, x, y - gap],
      [x, y + gap, x, top + height],
    ]) {
      if (x1 < x0 || y1 < y0) continue;
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.lineWidth = Math.max(1, Math.round(dpr));
    context.strokeStyle = "rgb(127 178 255 / 60%)";
    context.stroke();
  }

  function drawOutlines(context, tile, slice, dpr) {
    const toScreen = matrixOf(tile);
    context.save();
    context.beginPath();
    context.rect(...tile.leftTopWidthHeight);
    context.clip();
    context.lineJoin = "round";
    // All dark casings first, so that none hides the outline of another mask.
    const outlined = state.masks.flatMap((mask) => outlinesOf(mask, tile, slice));
    for (const cased of [true, false]) {
      for (const [mask, one, contour] of outlined) {
        const path = new Path2D();
        path.addPath(contour, toScreen);
        const dashes = cased ? [] : DASHES[mask.number % DASHES.length];
        context.globalAlpha = Math.min(1, 0.25 + mask.look.opacity * 1.5);
        context.setLineDash(dashes.map((d) => d * dpr));
        context.lineWidth = (cased ? 4 : 1.8) * dpr;
        context.strokeStyle = cased ? "rgb(0 0 0)" : `rgb(${one.colour.join(" ")})`;
        context.stroke(path);
      }
    }
    context.restore();
  }

  /** (mask, structure, Path2D) of each structure of an outlined mask in one slice. */
  function outlinesOf(mask, tile, slice) {
    if (mask.volume === null || !mask.look.on || isFilled(mask)) return [];
    const contours = contoursOf(mask, tile.axCorSag, slice);
    return mask.table.structures
      .filter((one) => isSeen(mask, one) && contours.has(one.index))
      .map((one) => [mask, one, contours.get(one.index)]);
  }

  /** The matrix from voxel corners in a tile's plane to canvas pixels; the axes are orthogonal. */
  function matrixOf(tile) {
    const image = nv.volumes[0],
      [left, top, width, height] = tile.leftTopWidthHeight;
    const [u, v] = [0, 1, 2].filter((axis) => axis !== AXIS[tile.axCorSag]);
    const m = image.frac2mmOrtho,
      mm = (axis, fraction) => m[5 * axis] * fraction + m[12 + axis];
    const [nu, nv_] = [image.dimsRAS[1 + u], image.dimsRAS[1 + v]];
    const x = (fraction) => left + (width * (mm(u, fraction) - tile.leftTopMM[0])) / tile.fovMM[0];
    const y = (fraction) =>
      top + height * (1 - (mm(v, fraction) - tile.leftTopMM[1]) / tile.fovMM[1]);
    return new DOMMatrix([(x(1) - x(0)) / nu, 0, 0, (y(1) - y(0)) / nv_, x(0), y(0)]);
  }

  /** Value -> Path2D of its closed outlines along voxel edges, in voxel units. */
  function contoursOf(mask, plane, slice) {
    const key = `${mask.number}/${plane}/${slice}`;
    if (!state.contours.has(key)) {
      if (state.contours.size > 200) state.contours.clear();
      state.contours.set(key, traced(...sliceOf(mask.volume, plane, slice)));
    }
    return state.contours.get(key);
  }

  /** (values, width, height) of one slice, rows along the plane's second RAS axis. */
  function sliceOf(volume, plane, slice) {
    const axis = AXIS[plane],
      [u, v] = [0, 1, 2].filter((a) => a !== axis);
    const start = volume.img2RASstart,
      step = volume.img2RASstep,
      width = volume.dimsRAS[1 + u],
      height = volume.dimsRAS[1 + v];
    const values = new Uint16Array(width * height),
      base = start[0] + start[1] + start[2] + slice * step[axis];
    for (let y = 0, n = 0; y < height; y++) {
      for (let x = 0, at = base + y * step[v]; x < width; x++, at += step[u])
        values[n++] = volume.img[at];
    }
    return [values, width, height];
  }

  /** Value -> Path2D of the outlines in one slice. */
  function traced(values, width, height) {
    // value -> from corner -> to corners; the structure is always to the right of an edge
    const edges = new Map(),
      row = width + 1;
    const add = (value, from, to) => {
      if (!edges.has(value)) edges.set(value, new Map());
      const of = edges.get(value);
      if (of.has(from)) of.get(from).push(to);
      else of.set(from, [to]);
    };
    for (let y = 0, n = 0; y < height; y++) {
      for (let x = 0; x < width; x++, n++) {
        const value = values[n],
          at = y * row + x;
        if (value === 0) continue;
        if (y === 0 || values[n - width] !== value) add(value, at, at + 1);
        if (x === width - 1 || values[n + 1] !== value) add(value, at + 1, at + 1 + row);
        if (y === height - 1 || values[n + width] !== value) add(value, at + 1 + row, at + row);
        if (x === 0 || values[n - 1] !== value) add(value, at + row, at);
      }
    }
    const paths = new Map();
    for (const [value, of] of edges) paths.set(value, chained(of, row));
    return paths;
  }

  /** Join edges into closed lines. */
  function chained(edges, row) {
    const path = new Path2D();
    for (const first of edges.keys()) {
      while (edges.has(first)) {
        path.moveTo(first % row, Math.floor(first / row));
        for (let at = next(edges, first); at !== first; at = next(edges, at))
          path.lineTo(at % row, Math.floor(at / row));
        path.closePath();
      }
    }
    return path;
  }

  function next(edges, from) {
    const to = edges.get(from),
      out = to.pop();
    if (!to.length) edges.delete(from);
    return out;
  }

  // ---- the panel ----

  function showStatus(text, failed = false) {
    $("busy").textContent = text;
    $("busy").classList.toggle("failed", failed);
  }

  function element(tag, properties = {}, ...children) {
    const out = Object.assign(document.createElement(tag), properties);
    out.append(...children);
    return out;
  }

  function choices(box, names, chosen, choose) {
    box.replaceChildren(
      ...names.map((name, n) =>
        element("button", {
          textContent: name,
          className: n === chosen ? "on" : "",
          onclick: () => choose(n),
        }),
      ),
    );
  }

  function paintPanel() {
    const facts = state.facts,
      one = boot.cases[state.at];
    $("cases").selectedIndex = state.at;
    $("name").textContent = one.id;
    $("facts").textContent =
      facts === null ? one.note : [one.note, sizeWords(facts)].filter(Boolean).join(". ");
    for (const section of document.querySelectorAll("section")) section.hidden = facts === null;
    if (facts === null) return;
    paintViews();
    paintWindow();
    paintMasks();
    paintStructures();
  }

  function sizeWords(facts) {
    const mm = facts.spacing_mm.map((s) => Number(s.toPrecision(3)));
    const size = facts.shape.includes(1)
      ? facts.shape.filter((n) => n > 1).join(" × ") + " pixels"
      : `${facts.shape.join(" × ")} voxels of ${mm.join(" × ")} mm`;
    const coarse = facts.shown_mm
      ? `, shown at ${facts.shown_mm.join(" × ")} mm`
      : ", cropped for this file, and at a lower resolution if it was large";
    const place = facts.placed
      ? "The patient's right is on the left"
      : "Shown as stored: the position in the patient is unknown";
    return size + (facts.reduced ? coarse : "") + ". " + place;
  }

  const VIEWS = ["all", "axial", "coronal", "sagittal", "3-D"];

  function setView(n) {
    state.view = VIEWS[n];
    paintViews();
    arrange();
  }

  function paintViews() {
    $("views").hidden = $("views").previousElementSibling.hidden = isFlat();
    choices($("views"), VIEWS, VIEWS.indexOf(state.view), setView);
    const names = state.facts.channels.map((channel) => channel.name);
    $("channels").hidden = names.length < 2;
    choices($("channels"), names, state.channel, setChannel);
    for (const key of ["smooth", "cross", "body"]) $(key).classList.toggle("on", state[key]);
    $("body").hidden = isFlat() || !state.masks.length;
  }

  async function setChannel(n) {
    const mine = loads;
    state.channel = n;
    const image = await imageOf(state.at);
    if (mine !== loads) return;
    const look = nv.scene.crosshairPos.slice();
    put([image, ...state.masks.map((mask) => mask.volume)]);
    nv.scene.crosshairPos = look;
    colour();
    paintViews();
    paintWindow();
  }

  function paintWindow() {
    const windows = state.facts.channels[state.channel].windows,
      round = (value) => Number(value.toPrecision(5));
    const [low, high] = nv.volumes.length
      ? [nv.volumes[0].cal_min, nv.volumes[0].cal_max]
      : limits();
    const chosen = windows.findIndex(
      (one) => Math.abs(one.low - low) + Math.abs(one.high - high) < 1e-3 * (one.high - one.low),
    );
    $("unit").textContent = state.facts.unit;
    choices(
      $("windows"),
      windows.map((one) => one.name),
      chosen,
      chooseWindow,
    );
    $("low").value = round(low);
    $("high").value = round(high);
  }

  function paintMasks() {
    $("masks").replaceChildren(
      ...state.masks.map((mask) => {
        const style = (name, filled) =>
          element("button", {
            textContent: name,
            className: isFilled(mask) === filled ? "on" : "",
            onclick: () => {
              mask.look.filled = filled;
              changed();
            },
          });
        return element(
          "div",
          { className: mask.look.on ? "mask" : "mask off" },
          element(
            "label",
            {},
            element("input", {
              type: "checkbox",
              checked: mask.look.on,
              onchange: () => toggle(mask),
            }),
            element("span", { textContent: mask.table.name }),
            element("kbd", { textContent: state.masks.length > 1 ? String(mask.number + 1) : "" }),
          ),
          element("div", { className: "style" }, style("fill", true), style("outline", false)),
          element("input", {
            type: "range",
            min: 0,
            max: STEP,
            value: mask.look.opacity * STEP,
            ariaLabel: `Opacity of ${mask.table.name}`,
            oninput: (event) => {
              mask.look.opacity = event.target.value / STEP;
              later(colour);
            },
          }),
        );
      }),
    );
  }

  function amount(one) {
    if (one.voxels === 0) return "–";
    if (one.ml === null) return `${one.voxels} px`;
    return one.ml >= 100
      ? one.ml.toFixed(0)
      : one.ml >= 10
        ? one.ml.toFixed(1)
        : one.ml.toPrecision(2);
  }

  function paintStructures() {
    const masks = state.masks,
      rows = new Map();
    for (const mask of masks) {
      for (const one of mask.table.structures)
        rows.set(one.name, { ...(rows.get(one.name) ?? {}), [mask.number]: one });
    }
    const known = masks.some((mask) => mask.table.structures.some((one) => one.ml !== null));
    const scored = masks.find((mask) => mask.table.structures.some((one) => one.dice !== null));
    const unit = known ? "ml" : "";
    const head = masks.map((mask) =>
      masks.length > 1 ? [mask.table.name, unit].filter(Boolean).join(", ") : unit,
    );
    const drawn = [...rows].filter(([, of]) => Object.values(of).some((one) => one.voxels > 0));
    const listed = rows.size > MOST_ROWS ? drawn : [...rows],
      left = rows.size - listed.length;
    const cells = (names) =>
      element("tr", {}, ...names.map((textContent) => element("th", { textContent })));
    $("structures-title").hidden = !rows.size;
    $("structures").replaceChildren(
      ...(rows.size ? [cells(["", ...head, ...(scored ? ["Dice"] : [])])] : []),
      ...listed.map(([name, of]) => structureRow(name, of, scored)),
    );
    $("absent").textContent = left ? `${left} more structures are in no mask` : "";
  }

  function structureRow(name, of, scored) {
    const masks = state.masks.filter((mask) => mask.number in of),
      any = Object.values(of)[0];
    const chip = element("span", { className: "chip" });
    chip.style.setProperty("--colour", `rgb(${any.colour.join(" ")})`);
    const button = element(
      "button",
      {
        title: `Show or hide ${name}`,
        onclick: () => {
          hide(
            name,
            masks.some((mask) => !mask.look.hidden.has(name)),
            masks,
          );
        },
      },
      chip,
      element("span", { textContent: name }),
    );
    const row = element(
      "tr",
      {},
      element("td", {}, button),
      ...state.masks.map((mask) =>
        element("td", { textContent: mask.number in of ? amount(of[mask.number]) : "–" }),
      ),
    );
    const dice = scored && scored.number in of ? of[scored.number].dice : null;
    if (scored) row.append(element("td", { textContent: dice === null ? "–" : dice.toFixed(3) }));
    row.classList.toggle(
      "off",
      masks.every((mask) => mask.look.hidden.has(name)),
    );
    row.classList.toggle(
      "empty",
      Object.values(of).every((one) => one.voxels === 0),
    );
    return row;
  }

  function hide(name, hidden, masks) {
    for (const mask of masks) mask.look.hidden[hidden ? "add" : "delete"](name);
    changed();
  }

  function toggle(mask) {
    mask.look.on = !mask.look.on;
    changed();
  }

  function toggleAll() {
    const on = !state.masks.some((mask) => mask.look.on);
    for (const mask of state.masks) mask.look.on = on;
    changed();
  }

  function swapStyles() {
    for (const mask of state.masks) mask.look.filled = !isFilled(mask);
    changed();
  }

  function changed() {
    paintMasks();
    paintStructures();
    later(colour);
  }

  // ---- where the crosshair is ----

  /** The index as stored in a picture, whose columns and rows may run against the RAS axes. */
  function stored(vox, axis) {
    const image = nv.volumes[0],
      n = Math.round(vox[axis]);
    return image.img2RASstep[axis] < 0 ? image.dimsRAS[1 + axis] - 1 - n : n;
  }

  nv.onLocationChange = (place) => {
    if (state.facts === null || !nv.volumes.length) return;
    if (Number.isInteger(place.axCorSag) && place.axCorSag <= SAGITTAL)
      state.plane = place.axCorSag;
    const value = place.values[0]?.value,
      lines = [];
    const mm = [0, 1, 2].map((axis) => {
      const letter = "LRPAIS"[2 * axis + (place.mm[axis] >= 0 ? 1 : 0)];
      return `${letter} ${Math.abs(place.mm[axis]).toFixed(1)}`;
    });
    lines.push(
      (state.facts.placed
        ? `${mm.join("  ")} mm`
        : `column ${stored(place.vox, 0)}, row ${stored(place.vox, 1)}`) +
        (Number.isFinite(value)
          ? `,  ${Number(value.toPrecision(5))}${state.facts.unit ? " " + state.facts.unit : ""}`
          : ""),
    );
    for (const mask of state.masks) {
      const index = Math.round(place.values[mask.number + 1]?.value ?? 0);
      const one = mask.table.structures.find((each) => each.index === index);
      if (one) lines.push(`${mask.table.name}: ${one.name}`);
    }
    $("where").textContent = lines.join("\n");
  };

  // ---- keys and buttons ----

  function turn(key) {
    state[key] = !state[key];
    if (key === "smooth") nv.setInterpolation(!state.smooth);
    paintViews();
    nv.drawScene();
  }

  function step(by) {
    const move = [0, 0, 0],
      plane = isFlat()
        ? flatPlane()
        : ({ coronal: CORONAL, sagittal: SAGITTAL, axial: AXIAL }[state.view] ?? state.plane);
    move[AXIS[plane]] = by;
    nv.moveCrosshairInVox(...move);
  }

  function windowAfter() {
    chooseWindow((state.window + 1) % state.facts.channels[state.channel].windows.length);
  }

  const KEYS = {
    n: () => show(state.at + 1),
    ArrowRight: () => show(state.at + 1),
    p: () => show(state.at - 1),
    ArrowLeft: () => show(state.at - 1),
    ArrowUp: () => step(1),
    ArrowDown: () => step(-1),
    o: toggleAll,
    f: swapStyles,
    w: windowAfter,
    v: () => isFlat() || setView((VIEWS.indexOf(state.view) + 1) % VIEWS.length),
    s: screenshot,
    i: () => turn("smooth"),
    x: () => turn("cross"),
    b: () => turn("body"),
  };

  addEventListener(
    "keydown",
    (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        event.target.matches("input[type=number], input[type=range], select")
      )
        return;
      const act =
        KEYS[event.key] ??
        (/^[1-9]$/.test(event.key) && state.masks[event.key - 1]
          ? () => toggle(state.masks[event.key - 1])
          : null);
      event.stopImmediatePropagation(); // NiiVue has its own shortcuts
      if (act === null) return;
      event.preventDefault();
      if (state.facts !== null || "npArrowLeftArrowRight".includes(event.key)) act();
    },
    true,
  );

  /** Save the view as a PNG, with the case and its structures below it. */
  function screenshot() {
    if (state.facts === null) return;
    nv.drawScene();
    const gl = nv.gl.canvas,
      dpr = gl.width / gl.clientWidth,
      line = 26 * dpr;
    const canvas = element("canvas", { width: gl.width, height: gl.height + line }),
      context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(gl, 0, 0);
    context.drawImage($("lines"), 0, 0);
    context.font = `${12 * dpr}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    let left = 10 * dpr;
    const write = (text, style) => {
      context.fillStyle = style;
      context.fillText(text, left, gl.height + line / 2);
      left += context.measureText(text).width + 14 * dpr;
    };
    write(state.facts.id, "#e4e7eb");
    for (const [name, colours] of seenStructures()) {
      context.fillStyle = `rgb(${colours.join(" ")})`;
      context.fillRect(left, gl.height + line / 2 - 5 * dpr, 10 * dpr, 10 * dpr);
      left += 15 * dpr;
      write(name, "#9aa3b0");
    }
    canvas.toBlob((blob) => {
      const link = element("a", {
        href: URL.createObjectURL(blob),
        download: `${state.facts.id}.png`,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  function seenStructures() {
    const seen = new Map();
    for (const mask of state.masks) {
      for (const one of mask.table.structures)
        if (one.voxels && isSeen(mask, one)) seen.set(one.name, one.colour);
    }
    return seen;
  }

  function connect() {
    $("nav").hidden = boot.cases.length < 2;
    for (const one of document.querySelectorAll(".several")) one.hidden = boot.cases.length < 2;
    $("cases").replaceChildren(
      ...boot.cases.map((one, n) =>
        element("option", { value: n, textContent: one.note ? `${one.id}, ${one.note}` : one.id }),
      ),
    );
    $("cases").onchange = (event) => {
      show(Number(event.target.value));
      event.target.blur();
    };
    $("previous").onclick = () => show(state.at - 1);
    $("next").onclick = () => show(state.at + 1);
    $("shot").onclick = screenshot;
    for (const key of ["smooth", "cross", "body"]) $(key).onclick = () => turn(key);
    for (const key of ["low", "high"])
      $(key).onchange = () => setWindow(Number($("low").value), Number($("high").value));
    nv.onIntensityChange = paintWindow;
    // In NiiVue, the wheel zooms if the drag mode is pan, and changes the slice otherwise.
    $("gl").addEventListener(
      "wheel",
      (event) => {
        nv.opts.dragMode = niivue.DRAG_MODE[event.ctrlKey ? "pan" : "windowing"];
      },
      true,
    );
  }

  async function begin() {
    connect();
    if (VIEWS.includes(asked.get("view"))) state.view = asked.get("view");
    try {
      await nv.attachToCanvas($("gl"), false);
      nv.setRenderAzimuthElevation(...FROM);
    } catch (error) {
      showStatus("This browser does not support WebGL2, which the viewer needs.", true);
      document.documentElement.dataset.ready = "failed";
      return;
    }
    await show(Number(asked.get("case") ?? 0) || 0);
  }

  begin();
})();
