// What is on the screen: the frame with a page, or the pages before the sign-in.
import { useEffect } from "preact/hooks";
import { isWaiting, type Session } from "./api";
import { Button } from "./components/button";
import { ErrorBox, Loading, NoticeRegion } from "./components/notice";
import { Page } from "./components/page";
import { Shell } from "./components/shell";
import { CurrentSession } from "./lib/current";
import { retryDelay } from "./lib/data";
import { location, match, navigate } from "./lib/router";
import type { Route } from "./lib/routes";
import { useStore } from "./lib/store";
import { accountRoutes } from "./pages/account";
import { adminRoutes } from "./pages/admin";
import { ForgottenPasswordPage, LinkPage, linkIn } from "./pages/links";
import { RegisterPage } from "./pages/register";
import { SignInPage } from "./pages/sign-in";
import { holds, load, state, unconfirmed } from "./session";

const ROUTES: Route[] = [...accountRoutes, ...adminRoutes];
/** The page after a sign-in without a deep link. */
const HOME = "#/profile";

export function App() {
  const now = useStore(state);
  const { path } = useStore(location);
  const link = linkIn(path);
  if (link) {
    // For signed-in users, too: the link may be that of another account.
    return (
      <>
        <main class="narrow">
          <Brand />
          <LinkPage key={`${link.purpose}/${link.secret}`} {...link} />
        </main>
        <Waiting />
      </>
    );
  }
  return (
    <>
      {now.is === "signed-in" ? (
        <SignedIn session={now.session} />
      ) : (
        <main class="narrow">
          <Brand />
          <UnconfirmedSignOut />
          {now.is === "unknown" ? <Starting error={now.error} /> : <SignedOut notice={now.notice} />}
        </main>
      )}
      <Waiting />
    </>
  );
}

function Brand() {
  return <p class="brand">Latchkey</p>;
}

/** Says why a form takes long. */
function Waiting() {
  const isBusy = useStore(isWaiting);
  return (
    <div class="waiting" role="status">
      {isBusy && <p>The server is busy. The console tries again…</p>}
    </div>
  );
}

/** Until the server says who is signed in, the screen shows nothing of an account. */
function Starting({ error }: { error: unknown }) {
  useEffect(() => {
    const delay = error === undefined ? undefined : retryDelay(error, 2);
    if (delay === undefined) return undefined;
    const timer = setTimeout(() => void load(), delay);
    return () => clearTimeout(timer);
  }, [error]);
  return error === undefined ? (
    <Loading />
  ) : (
    <ErrorBox error={error} onRetry={load} isRetrying={retryDelay(error, 0) !== undefined} />
  );
}

function UnconfirmedSignOut() {
  if (!useStore(unconfirmed)) return null;
  return (
    <div class="notice warning" role="alert">
      <p>
        You are signed out here, but the server has not confirmed it, so the session is still open on the server. The
        console ends it as soon as the server allows it. Keep this page open.
      </p>
    </div>
  );
}

function SignedOut({ notice }: { notice: string | undefined }) {
  const { path } = useStore(location);
  if (path === "register") return <RegisterPage />;
  return path === "forgotten-password" ? <ForgottenPasswordPage /> : <SignInPage notice={notice} />;
}

function SignedIn({ session }: { session: Session }) {
  const { path, query } = useStore(location);
  const isStart = ["", "sign-in", "register", "forgotten-password"].includes(path);
  useEffect(() => {
    if (isStart) navigate(HOME, { replace: true });
  }, [isStart]);
  if (isStart) return null;
  const found = find(path, session);
  return (
    <CurrentSession.Provider value={session}>
      <Shell session={session} routes={ROUTES} path={path}>
        <NoticeRegion />
        {found ? <found.route.component key={path} params={found.params} query={query} /> : <NoSuchPage key={path} />}
      </Shell>
    </CurrentSession.Provider>
  );
}

function find(path: string, session: Session) {
  for (const route of ROUTES) {
    const params = match(route.path, path);
    if (params && holds(session, route.scopes)) return { route, params };
  }
  return undefined;
}

function NoSuchPage() {
  return (
    <Page title="No such page" intro="The address is wrong, or your role does not open this page.">
      <Button kind="primary" onClick={() => navigate(HOME)}>
        Go to your profile
      </Button>
    </Page>
  );
}
