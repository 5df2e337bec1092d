// The session, for the pages of a signed-in user.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { SessionResponse } from "../pending";

export const CurrentSession = createContext<SessionResponse | undefined>(undefined);

/** The session of the signed-in user. Only for components within the frame. */
export function useSession(): SessionResponse {
  const session = useContext(CurrentSession);
  if (!session) throw new Error("useSession is for the pages of a signed-in user");
  return session;
}
