import { useState } from "preact/hooks";
import { call } from "../../api";
import { Form, PasswordField, useForm } from "../../components/form";
import { notify } from "../../components/notice";
import { Card, Page } from "../../components/page";
import { refresh } from "../../session";
import { useSettings } from "../../settings";
import { AccountName } from "./account-name";
import { NewPasswordField, lengthError } from "./new-password";

const INITIAL = { current_password: "", new_password: "" };

export function PasswordPage() {
  const settings = useSettings();
  const [keepsKeys, setKeepsKeys] = useState(false);
  const form = useForm({
    initial: INITIAL,
    check: ({ current_password, new_password }) => {
      const length = lengthError(new_password, settings.value);
      return {
        ...(current_password === "" && { current_password: "Enter your current password." }),
        ...(length !== undefined && { new_password: length }),
      };
    },
    submit: async (values) => {
      await call("put", "/me/password", { body: { ...values, revoke_keys: !keepsKeys } });
      form.reset();
      await refresh();
      notify(
        keepsKeys
          ? "Your password is changed. Your other sessions and your access token have ended."
          : "Your password is changed. Your other sessions, your access token and your API keys have ended.",
      );
    },
    fieldOf: { wrong_password: "current_password" },
  });
  return (
    <Page title="Password" intro="A new password ends your other sessions and your access token. You stay signed in here.">
      <Card>
        <Form form={form} submitLabel="Change password">
          <AccountName />
          <PasswordField form={form} name="current_password" label="Current password" autoComplete="current-password" />
          <NewPasswordField form={form} name="new_password" label="New password" />
          <label class="check">
            <input type="checkbox" checked={keepsKeys} onChange={(event) => setKeepsKeys(event.currentTarget.checked)} />
            <span>
              Keep my API keys
              <span class="check-text">
                Leave this off if somebody may know your password: they may have created keys.
              </span>
            </span>
          </label>
        </Form>
      </Card>
    </Page>
  );
}
