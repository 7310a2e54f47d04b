// Every video codec that browsers send passes through.

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  for (const codec of ['VP8', 'VP9', 'H264', 'AV1']) {
    const room = codec.toLowerCase();
    const ada = await browsers.join(chromium, room, `Ada-${codec}`, { codec });
    const bob = await browsers.join(chromium, room, `Bob-${codec}`, { codec });
    await check(`${codec} is decoded both ways`, async () => {
      const both = await Promise.all([ada.untilSees(bob), bob.untilSees(ada)]);
      for (const entry of both) {
        if (entry.codec !== codec) throw new Error(`${entry.codec} is decoded, not ${codec}`);
      }
      return both.map(({ frames, width }) => `${frames} frames ${width} wide`).join(', ');
    });
    await Promise.all([ada.page.close(), bob.page.close()]);
  }
}
