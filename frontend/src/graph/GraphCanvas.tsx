import { type KeyboardEvent, type PointerEvent, type RefObject, useEffect, useRef, useState } from 'react';
import { rootScale } from '../app/root-scale';
import type { Point } from './camera';
import { type BoxId, groupOfBox, isGroup } from './ids';
import { actionOfKey } from './keyboard';
import type { GraphModel } from './model';
import type { Palette } from './palette';
import { GraphSurface } from './surface';
import type { GraphValues } from './values';
import classes from './GraphCanvas.module.css';

const DRAG_PIXELS = 4;
const WHEEL_ZOOM = 0.0022;
const PINCH_ZOOM = 0.01;

interface Props {
  model: GraphModel;
  values: GraphValues | null;
  palette: Palette;
  selected: BoxId | null;
  matches: ReadonlySet<BoxId>;
  bright: ReadonlySet<BoxId> | null;
  onSelect(id: BoxId | null): void;
  onOpen(open: ReadonlySet<number>): void;
  /** Where the surface is put for whoever moves it. */
  surface: RefObject<GraphSurface | null>;
}

const label =
  'Model graph. Up and Down follow the data, Left and Right walk along siblings, Enter opens or closes a group, Escape goes to the enclosing group, plus and minus zoom, 0 shows all. The outline lists the same ops.';

/** The graph with its minimap, and what pointer, wheel and keys do in it. */
export function GraphCanvas(props: Props) {
  const { model, values, palette, selected, matches, bright, onSelect, surface } = props;
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const minimap = useRef<HTMLCanvasElement>(null);
  const drag = useRef<(Point & { moved: boolean }) | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [state, setState] = useState({ busy: true, boxes: 0, portals: 0, error: '' });

  useEffect(() => {
    const created = new GraphSurface(model, canvas.current!, minimap.current!, {
      opened: (open) => latest.current.onOpen(open),
      state: setState,
    });
    surface.current = created;
    created.mark({
      palette: latest.current.palette,
      values: latest.current.values,
      selected: latest.current.selected,
    });
    created.start(latest.current.selected);
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = host.current!;
      const map = minimap.current!;
      created.resize({ width, height }, { width: map.clientWidth, height: map.clientHeight }, rootScale());
    });
    observer.observe(host.current!);
    return () => {
      observer.disconnect();
      created.stop();
      surface.current = null;
    };
  }, [model, surface]);

  useEffect(
    () => surface.current?.mark({ palette, values, selected, matches, bright }),
    [palette, values, selected, matches, bright, model, surface],
  );

  useEffect(() => {
    const element = canvas.current!;
    // React listens passively, which does not let a page keep the wheel from scrolling it.
    const onWheel = (event: WheelEvent): void => {
      event.preventDefault();
      const at = pointIn(element, event);
      if (event.shiftKey) surface.current!.pan(event.deltaY + event.deltaX, 0);
      else if (event.deltaX && !event.ctrlKey) surface.current!.pan(event.deltaX, event.deltaY);
      else surface.current!.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? PINCH_ZOOM : WHEEL_ZOOM)), at);
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  }, [surface]);

  const onPointerDown = (event: PointerEvent<HTMLCanvasElement>): void => {
    if (event.button !== 0) return;
    drag.current = { x: event.clientX, y: event.clientY, moved: false };
    event.currentTarget.setPointerCapture(event.pointerId);
  };

  const onPointerMove = (event: PointerEvent<HTMLCanvasElement>): void => {
    const from = drag.current;
    if (!from) {
      const hovered = surface.current!.hit(pointIn(event.currentTarget, event));
      event.currentTarget.style.cursor = hovered === null ? 'grab' : 'pointer';
      surface.current!.mark({ hovered });
      return;
    }
    const scale = rootScale();
    const [dx, dy] = [(event.clientX - from.x) / scale, (event.clientY - from.y) / scale];
    if (!from.moved && Math.abs(dx) + Math.abs(dy) <= DRAG_PIXELS) return;
    drag.current = { x: event.clientX, y: event.clientY, moved: true };
    event.currentTarget.style.cursor = 'grabbing';
    surface.current!.pan(-dx, -dy);
  };

  const onPointerUp = (event: PointerEvent<HTMLCanvasElement>): void => {
    const from = drag.current;
    drag.current = null;
    if (!from || from.moved) return;
    const id = surface.current!.hit(pointIn(event.currentTarget, event));
    onSelect(id);
    if (id !== null && isGroup(id)) surface.current!.toggle(groupOfBox(id));
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const view = surface.current!;
    const action = actionOfKey(event.key, event.shiftKey, model, selected, (id) => view.isShown(id));
    if (!action) return;
    event.preventDefault();
    if (action.kind === 'zoom') view.zoom(action.factor);
    else if (action.kind === 'pan') view.pan(action.dx, action.dy);
    else if (action.kind === 'fit') view.fit();
    else if (action.kind === 'toggle') view.toggle(action.group);
    else {
      onSelect(action.id);
      if (action.id !== null) view.reveal(action.id);
    }
  };

  const onMap = (event: PointerEvent<HTMLCanvasElement>): void => {
    if (event.buttons & 1) surface.current!.lookAtMap(pointIn(event.currentTarget, event));
  };

  return (
    <div ref={host} className={classes.host} data-busy={state.busy}>
      <canvas
        ref={canvas}
        className={classes.canvas}
        tabIndex={0}
        role="application"
        aria-label={label}
        data-testid="graph"
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerLeave={() => surface.current?.mark({ hovered: null })}
        onKeyDown={onKeyDown}
      />
      <canvas
        ref={minimap}
        className={classes.minimap}
        aria-hidden="true"
        data-testid="minimap"
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          onMap(event);
        }}
        onPointerMove={onMap}
      />
      <div className={classes.state} data-testid="graph-state" role="status">
        {state.error ? `The layout failed: ${state.error}` : state.busy ? 'Laying out…' : summary(state)}
      </div>
    </div>
  );
}

const summary = ({ boxes, portals }: { boxes: number; portals: number }): string =>
  `${boxes.toLocaleString('en')} boxes${portals ? ` · ${portals.toLocaleString('en')} long edges as chips` : ''}`;

function pointIn(element: Element, event: { clientX: number; clientY: number }): Point {
  const box = element.getBoundingClientRect();
  const scale = rootScale();
  return { x: (event.clientX - box.x) / scale, y: (event.clientY - box.y) / scale };
}
