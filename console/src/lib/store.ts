// A value that components subscribe to.
import { useEffect, useState } from "preact/hooks";

export class Store<T> {
  private readonly listeners = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.listeners]) listener();
  }

  /** Returns the function that ends the subscription. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** The value of the store; the component renders again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, render] = useState({});
  const seen = store.get();
  useEffect(() => {
    const stop = store.subscribe(() => render({}));
    // The value may have changed between the first rendering and this subscription.
    if (!Object.is(seen, store.get())) render({});
    return stop;
  }, [store]);
  return seen;
}
