// A short name for a `User-Agent` header.

const BROWSERS: [RegExp, string][] = [
  [/\bEdg(?:e|A|iOS)?\/(\d+)/, "Edge"],
  [/\bOPR\/(\d+)/, "Opera"],
  [/\b(?:Firefox|FxiOS)\/(\d+)/, "Firefox"],
  [/\b(?:HeadlessChrome|Chrome|CriOS)\/(\d+)/, "Chrome"],
  [/\bVersion\/(\d+).*\bSafari\//, "Safari"],
];
const SYSTEMS: [RegExp, string][] = [
  [/\bAndroid\b/, "Android"],
  [/\biPhone|iPad\b/, "iOS"],
  [/\bWindows\b/, "Windows"],
  [/\bMac OS X\b/, "macOS"],
  [/\bCrOS\b/, "ChromeOS"],
  [/\bLinux\b/, "Linux"],
];

/** Such as "Firefox 140 on Linux". The header itself if it is of no known browser. */
export function browserName(header: string | null): string | null {
  if (header === null) return null;
  for (const [pattern, name] of BROWSERS) {
    const found = pattern.exec(header);
    if (!found) continue;
    const system = SYSTEMS.find(([mark]) => mark.test(header));
    return `${name} ${found[1]}${system ? ` on ${system[1]}` : ""}`;
  }
  return header;
}
