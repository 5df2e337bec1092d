// A field for a new password, with the rules and their reasons.
import { PasswordField, type FormState } from "../../components/form";
import type { ConsoleSettings } from "../../pending";
import { useSettings } from "../../settings";

interface Props<V extends Record<string, string>> {
  form: FormState<V>;
  name: keyof V & string;
  label: string;
}

export function NewPasswordField<V extends Record<string, string>>({ form, name, label }: Props<V>) {
  const settings = useSettings();
  const rules = (
    <ul>
      {settings.value && (
        <li>
          {settings.value.password_min} to {settings.value.password_max} characters: length protects more than symbols.
          Several words are fine.
        </li>
      )}
      <li>Not a common password, and not your name or e-mail address: attackers try these first.</li>
      <li>Blanks and all characters count, exactly as you type them.</li>
    </ul>
  );
  return <PasswordField form={form} name={name} label={label} help={rules} autoComplete="new-password" />;
}

/** Why the length is wrong, or undefined. The server counts code points, too. */
export function lengthError(password: string, settings: ConsoleSettings | undefined): string | undefined {
  if (password === "") return "Enter a password.";
  const length = [...password].length;
  if (!settings || (length >= settings.password_min && length <= settings.password_max)) return undefined;
  return `Use ${settings.password_min} to ${settings.password_max} characters. This has ${length}.`;
}
