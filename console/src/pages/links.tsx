// What the links in mails open. A link acts on a click, never when the page loads: programs that open links must not use
// them.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call } from "../api";
import { Form, PasswordField, TextField, useForm } from "../components/form";
import { Button } from "../components/button";
import { DoneNotice, ErrorBox, Loading, Notice } from "../components/notice";
import { Page } from "../components/page";
import { useSettings } from "../settings";
import { NewPasswordField, lengthError } from "./account/new-password";
import { PersonFields } from "./account/person";
import { NewLink } from "./new-link";

/** The pages by the first part of their path. */
const PAGES = {
  "password-reset": ResetPage,
  "email-verification": VerificationPage,
  registration: RegistrationPage,
  "email-change": EmailChangePage,
  "email-undo": EmailUndoPage,
  invitation: InvitationPage,
} as const;
export type Purpose = keyof typeof PAGES;

interface LinkProps {
  secret: string;
}

/** The purpose and the secret in the path of a link, such as `password-reset/lkm_…`. The secret is empty after a reload. */
export function linkIn(path: string): { purpose: Purpose; secret: string } | undefined {
  const [purpose = "", secret = "", ...others] = path.split("/");
  if (!Object.hasOwn(PAGES, purpose) || others.length > 0) return undefined;
  return { purpose: purpose as Purpose, secret };
}

export function LinkPage({ purpose, secret }: { purpose: Purpose; secret: string }) {
  useEffect(() => {
    // The secret must not stay in the address bar, nor in the history of the browser. The same link can come again.
    history.replaceState(null, "", `#/${purpose}`);
  });
  const Content = PAGES[purpose];
  return secret === "" ? <WithoutSecret purpose={purpose} /> : <Content secret={secret} />;
}

function WithoutSecret({ purpose }: { purpose: Purpose }) {
  return (
    <Page
      title="Open the link again"
      intro="Open the link in the mail again: its secret is not kept in the address bar, so a reload loses it."
    >
      <p>
        Did you use it already? <a href="#/sign-in">Sign in</a>
      </p>
      <NewLink purpose={purpose} />
    </Page>
  );
}

interface StepsProps {
  title: string;
  intro: string;
  done: string | undefined;
  /** The link that the page needs. */
  purpose?: Purpose;
  children: ComponentChildren;
}

/** The page of a form, or what is there after it. */
function Steps({ title, intro, done, purpose, children }: StepsProps) {
  return (
    <Page title={title} {...(done === undefined && { intro })}>
      {done === undefined ? (
        <>
          <div class="card">{children}</div>
          {purpose && <NewLink purpose={purpose} />}
        </>
      ) : (
        <>
          <DoneNotice>{done}</DoneNotice>
          <p>
            <a href="#/sign-in">Sign in</a>
          </p>
        </>
      )}
    </Page>
  );
}

interface ConfirmationProps {
  purpose: Purpose;
  title: string;
  intro: string;
  label: string;
  done: string;
  act: (password: string) => Promise<unknown>;
}

/** A form that asks for the password of the account, without which a link of a stranger's request would do. */
function Confirmation({ purpose, title, intro, label, done, act }: ConfirmationProps) {
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { password: "" },
    check: ({ password }) => (password === "" ? { password: "Enter the password of your account." } : {}),
    submit: async ({ password }) => {
      await act(password);
      setDone(true);
    },
    fieldOf: { wrong_password: "password" },
  });
  return (
    <Steps purpose={purpose} title={title} intro={intro} done={isDone ? done : undefined}>
      <Form form={form} submitLabel={label}>
        <PasswordField form={form} name="password" label="Password" autoComplete="current-password" />
      </Form>
      {!isDone && (
        <p>
          <a href="#/forgotten-password">Forgotten password?</a>
        </p>
      )}
    </Steps>
  );
}

function ResetPage({ secret }: LinkProps) {
  return <NewPassword secret={secret} intro="This ends all sign-ins of your account, and the API keys that can act on it." />;
}

function NewPassword({ secret, intro }: LinkProps & { intro: string }) {
  const settings = useSettings();
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { new_password: "" },
    check: ({ new_password }) => {
      const length = lengthError(new_password, settings.value);
      return length === undefined ? {} : { new_password: length };
    },
    submit: async ({ new_password }) => {
      await call("post", "/password-reset/confirm", { body: { secret, new_password } });
      setDone(true);
    },
  });
  return (
    <Steps purpose="password-reset" title="Set a new password" intro={intro} done={isDone ? "Your password is changed." : undefined}>
      <Form form={form} submitLabel="Set the password">
        <NewPasswordField form={form} name="new_password" label="New password" />
      </Form>
    </Steps>
  );
}

function VerificationPage({ secret }: LinkProps) {
  return (
    <Confirmation
      purpose="email-verification"
      title="Verify your e-mail address"
      intro="This states that you receive mails at the address of your account. If you have no account, close this page."
      label="Verify the address"
      done="Your e-mail address is verified."
      act={(password) => call("post", "/email-verification/confirm", { body: { secret, password } })}
    />
  );
}

function EmailChangePage({ secret }: LinkProps) {
  return (
    <Confirmation
      purpose="email-change"
      title="Confirm your new e-mail address"
      intro="You will sign in with it. All present sign-ins end, and API keys stay valid. If you did not change your address, close this page."
      label="Use this address"
      done="Your e-mail address is changed. Sign in with the new one."
      act={(password) => call("post", "/email-change/confirm", { body: { secret, password } })}
    />
  );
}

/** Restores the address. A new password follows, because the person who changed the address may know the present one. */
function EmailUndoPage({ secret }: LinkProps) {
  const [reset, setReset] = useState<string>();
  const [error, setError] = useState<unknown>();
  const run = async () => {
    try {
      setReset((await call("post", "/email-change/undo", { body: { secret } })).secret);
    } catch (failure) {
      setError(failure);
    }
  };
  if (reset !== undefined) {
    return (
      <NewPassword
        secret={reset}
        intro="Your e-mail address is restored. Set a new password: the old one is no longer valid. You also get a mail with a link for that."
      />
    );
  }
  return (
    <Steps
      purpose="email-undo"
      title="Restore your e-mail address"
      intro="This ends the password, all sign-ins, and the API keys that can act on the account. Then you set a new password."
      done={undefined}
    >
      <ErrorBox error={error} />
      <div class="form-actions">
        <Button kind="primary" onClick={run}>
          Restore the address
        </Button>
      </div>
    </Steps>
  );
}

function RegistrationPage({ secret }: LinkProps) {
  return (
    <NewAccount
      purpose="registration"
      title="Complete your registration"
      intro="You sign in with the e-mail address to which the link was sent. If you did not register, close this page."
      create={(values) => call("post", "/registration/confirm", { body: { secret, ...values } })}
    />
  );
}

function InvitationPage({ secret }: LinkProps) {
  return (
    <NewAccount
      purpose="invitation"
      title="Create your account"
      intro="You sign in with the e-mail address to which the invitation was sent."
      create={(values) => call("post", "/invitations/accept", { body: { secret, ...values } })}
    />
  );
}

const EMPTY = { name: "", surname: "", website: "", password: "" };

interface NewAccountProps {
  purpose: Purpose;
  title: string;
  intro: string;
  create: (values: typeof EMPTY) => Promise<unknown>;
}

function NewAccount({ purpose, title, intro, create }: NewAccountProps) {
  const settings = useSettings();
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: EMPTY,
    check: ({ name, password }) => {
      const length = lengthError(password, settings.value);
      return {
        ...(name.trim() === "" && { name: "Enter your first name." }),
        ...(length !== undefined && { password: length }),
      };
    },
    submit: async (values) => {
      await create(values);
      setDone(true);
    },
  });
  return (
    <Steps purpose={purpose} title={title} intro={intro} done={isDone ? "Your account is created." : undefined}>
      <Form form={form} submitLabel="Create the account">
        <PersonFields form={form} />
        <NewPasswordField form={form} name="password" label="Password" />
      </Form>
    </Steps>
  );
}

/** Asks for a link that sets a new password. */
export function ForgottenPasswordPage() {
  const settings = useSettings();
  // A form that is filled in must stay while the settings load again.
  if (settings.value?.mail ?? settings.error !== undefined) return <ResetRequest />;
  return (
    <Page title="Forgotten password">
      {settings.value === undefined ? (
        <Loading />
      ) : (
        <Notice>This server sends no mails. Ask an administrator for a link that sets a new password.</Notice>
      )}
      <p>
        <a href="#/sign-in">Sign in</a>
      </p>
    </Page>
  );
}

function ResetRequest() {
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { email: "" },
    check: ({ email }) => (email.trim() === "" ? { email: "Enter your e-mail address." } : {}),
    submit: async (values) => {
      await call("post", "/password-reset", { body: values });
      setDone(true);
    },
  });
  return (
    <Steps
      title="Forgotten password"
      intro="You get a mail with a link that sets a new password."
      done={isDone ? "If the address has an account, a mail is on its way, unless the address got several of them already." : undefined}
    >
      <Form form={form} submitLabel="Send the link">
        <TextField
          form={form}
          name="email"
          label="E-mail address"
          type="email"
          autoComplete="username"
          input={{ autoCapitalize: "none", spellcheck: false }}
        />
      </Form>
    </Steps>
  );
}
