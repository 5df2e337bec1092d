// Loading of data: again with back-off while the server is away, and page by page.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, OfflineError } from "../api";

export interface Data<T> {
  value: T | undefined;
  error: unknown;
  isLoading: boolean;
  /** Loads again, for example after a change. The old value stays until then. */
  reload(): void;
  /** Replaces the value without a request. */
  replace(value: T): void;
}

const FIRST_WAIT = 1_000;
const LAST_WAIT = 30_000;

/** Milliseconds until the next attempt, or undefined if the error is permanent. */
export function retryDelay(error: unknown, attempt: number): number | undefined {
  const isTemporary = error instanceof OfflineError || (error instanceof ApiError && error.isTemporary);
  if (!isTemporary) return undefined;
  const backOff = Math.min(FIRST_WAIT * 2 ** attempt, LAST_WAIT);
  const asked = error instanceof ApiError ? (error.retryAfter ?? 0) * 1_000 : 0;
  // Different clients must not come back at the same moment.
  return Math.max(asked, backOff) * (1 + Math.random() / 4);
}

/** Loads when the component appears and when `inputs` change. */
export function useData<T>(load: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[]): Data<T> {
  const [value, setValue] = useState<T>();
  const [error, setError] = useState<unknown>();
  const [isLoading, setLoading] = useState(true);
  const [round, setRound] = useState(0);
  useEffect(() => setValue(undefined), inputs);
  useEffect(() => {
    const controller = new AbortController();
    let timer = 0;
    const attempt = async (count: number) => {
      setLoading(true);
      try {
        const loaded = await load(controller.signal);
        if (controller.signal.aborted) return;
        setValue(() => loaded);
        setError(undefined);
      } catch (failure) {
        if (controller.signal.aborted) return;
        setError(failure);
        const delay = retryDelay(failure, count);
        if (delay !== undefined) timer = window.setTimeout(() => void attempt(count + 1), delay);
      }
      setLoading(false);
    };
    void attempt(0);
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [...inputs, round]);
  const reload = useCallback(() => setRound((count) => count + 1), []);
  return { value, error, isLoading, reload, replace: (next) => setValue(() => next) };
}

/** A part of a list, as the API returns it. */
export interface Part<T> {
  items: T[];
  next?: number | null;
}

export interface List<T> {
  items: T[];
  error: unknown;
  isLoading: boolean;
  /** Whether there is nothing more to load. */
  isComplete: boolean;
  more(): void;
  /** Loads the part again that failed. */
  retry(): void;
  /** Loads the list again from its beginning. */
  reload(): void;
}

/** Loads a list part by part. The first part loads at once, the others with `more`. */
export function useList<T>(
  load: (after: number | undefined, signal: AbortSignal) => Promise<Part<T>>,
  inputs: readonly unknown[],
): List<T> {
  const [parts, setParts] = useState<Part<T>[]>([]);
  const [after, setAfter] = useState<number>();
  const first = useRef(true);
  // Other inputs make another list.
  useEffect(() => {
    if (!first.current) reset();
    first.current = false;
  }, inputs);
  const reset = () => {
    setParts([]);
    setAfter(undefined);
  };
  const data = useData(async (signal) => {
    const part = await load(after, signal);
    if (!signal.aborted) setParts((known) => (after === undefined ? [part] : [...known, part]));
    return part;
  }, [...inputs, after]);
  const last = parts[parts.length - 1];
  const next = last?.next ?? undefined;
  return {
    items: parts.flatMap((part) => part.items),
    error: data.error,
    isLoading: data.isLoading,
    isComplete: last !== undefined && next === undefined,
    more: () => {
      if (!data.isLoading && next !== undefined) setAfter(next);
    },
    retry: data.reload,
    reload: () => {
      reset();
      data.reload();
    },
  };
}
