// The session, for the pages of a signed-in user.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Session } from "../api";

export const CurrentSession = createContext<Session | undefined>(undefined);

/** The session of the signed-in user. Only for components within the frame. */
export function useSession(): Session {
  const session = useContext(CurrentSession);
  if (!session) throw new Error("useSession is for the pages of a signed-in user");
  return session;
}
