// A deck.gl layer of round points as one call of GL points. The ScatterplotLayer draws an instance per point, for which
// renderers without a GPU need seconds with 100,000 of them.

const { Layer, project32 } = globalThis.deck;
const { Model } = globalThis.luma;

// One field per line: luma.gl reads the block line by line.
const UNIFORMS = `layout(std140) uniform dotsUniforms {
  float size;
  float hole;
  float opacity;
} dots;`;

const VERTEX = `#version 300 es
#define SHADER_NAME dots-vertex
in vec2 positions;
in vec4 colors;
out vec4 vColor;
void main(void) {
  gl_Position = project_common_position_to_clipspace(vec4(positions - project.commonOrigin.xy, 0.0, 1.0));
  gl_PointSize = dots.size * project.devicePixelRatio;
  vColor = colors;
}`;

const FRAGMENT = `#version 300 es
#define SHADER_NAME dots-fragment
precision highp float;
in vec4 vColor;
out vec4 fragColor;
void main(void) {
  float distance = 2.0 * length(gl_PointCoord - 0.5);
  float blur = min(0.9, 2.5 / dots.size);
  float inside = 1.0 - smoothstep(1.0 - blur, 1.0, distance);
  float outside = dots.hole > 0.0 ? smoothstep(dots.hole - blur, dots.hole, distance) : 1.0;
  fragColor = vec4(vColor.rgb, vColor.a * dots.opacity * inside * outside);
  if (fragColor.a <= 0.0) discard;
}`;

// Points lie on the tiles: the later layer is drawn over the earlier, whatever rounding does to their depth.
const FLAT = { depthCompare: "always", depthWriteEnabled: false };

/** Points of `data.attributes` getPosition (x, y) and getColor (r, g, b, a bytes); `size` in pixels, `hole` its empty share, `most` of them are drawn. */
export class DotLayer extends Layer {
  getShaders() {
    const dots = { name: "dots", vs: UNIFORMS, fs: UNIFORMS, uniformTypes: { size: "f32", hole: "f32", opacity: "f32" } };
    return super.getShaders({ vs: VERTEX, fs: FRAGMENT, modules: [project32, dots] });
  }

  initializeState() {
    const attributes = this.getAttributeManager();
    attributes.remove(["instancePickingColors"]);
    attributes.add({
      positions: { size: 2, type: "float32", accessor: "getPosition" },
      colors: { size: 4, type: "unorm8", accessor: "getColor" },
    });
    this.setState({
      model: new Model(this.context.device, { ...this.getShaders(), id: this.props.id, bufferLayout: attributes.getBufferLayouts(), topology: "point-list", isInstanced: false }),
    });
  }

  draw() {
    const { size, hole, opacity, most } = this.props;
    const { model } = this.state;
    model.setVertexCount(Math.min(most, this.props.data.length));
    model.shaderInputs.setProps({ dots: { size, hole, opacity } });
    model.draw(this.context.renderPass);
  }
}

DotLayer.layerName = "DotLayer";
DotLayer.defaultProps = {
  getPosition: { type: "accessor", value: [0, 0] }, getColor: { type: "accessor", value: [0, 0, 0, 255] },
  size: { type: "number", value: 4 }, hole: { type: "number", value: 0 }, most: { type: "number", value: Infinity },
  parameters: { type: "object", value: FLAT },
};

const SLOW = 70; // milliseconds of a frame in which motion is no longer fluent
const FAST = 35;
const PAUSE = 1500; // milliseconds after which a frame says nothing about speed
const LEAST = 10000;

/** How many points may be drawn while the map moves: as many as this machine draws fluently. */
export class Budget {
  points = Infinity;
  frame = 0; // milliseconds that the last frame in motion took
  #last = 0;

  /** Takes note of a frame in motion, and returns the number of points for the next. */
  next(total) {
    const now = performance.now();
    const passed = now - this.#last;
    this.#last = now;
    if (passed < PAUSE) this.frame = passed;
    if (passed < PAUSE && passed > SLOW) this.points = Math.max(LEAST, Math.min(this.points, total) * 0.6);
    else if (passed < FAST) this.points = Math.min(total, this.points * 1.25);
    return Math.min(total, Math.round(this.points));
  }
}
