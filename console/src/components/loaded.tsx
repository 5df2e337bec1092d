// A page that needs one object before it can show anything.
import type { ComponentChildren } from "preact";
import { retryDelay, type Data } from "../lib/data";
import { ErrorBox, Loading } from "./notice";

interface Props<T> {
  data: Data<T>;
  children: (value: T) => ComponentChildren;
}

/** The object, or why it is absent. */
export function Loaded<T>({ data, children }: Props<T>) {
  return (
    <>
      <ErrorBox error={data.error} onRetry={data.reload} isRetrying={retryDelay(data.error, 0) !== undefined} />
      {data.value === undefined && data.isLoading && <Loading />}
      {data.value !== undefined && children(data.value)}
    </>
  );
}
