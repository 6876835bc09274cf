#!/usr/bin/env python3
"""Draws the last anomaly as a map, beside the mean anomaly of every month.

    plot.py ANOMALY_FOLDER OUTPUT.png
"""

import datetime
import glob
import os
import sys

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import netCDF4
import numpy as np


def main(folder, output):
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "*.nc")))
    if not paths:
        sys.exit(f"plot.py: no file *.nc in {folder}")
    dates, means = [], []
    for path in paths:  # the names sort by date, so the last file is the last month
        with netCDF4.Dataset(path) as one:
            time = one["time"]
            date = netCDF4.num2date(time[0], time.units, getattr(time, "calendar", "standard"))
            latitude, longitude = one["latitude"][:], one["longitude"][:]
            field = one["anomaly"][0]
        # A cell is the smaller the nearer it is to a pole: weigh by the cosine of the latitude.
        weights = np.broadcast_to(np.cos(np.radians(latitude))[:, None], field.shape)
        means.append(np.ma.average(field, weights=weights))
        dates.append(datetime.date(date.year, date.month, 15))

    band = f"{degrees(latitude.min(), 'N', 'S')} to {degrees(latitude.max(), 'N', 'S')}"
    month = f"{dates[-1]:%B %Y}"
    plt.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(14, 5), width_ratios=(1.35, 1), layout="constrained"
    )
    figure.suptitle("Sea-surface temperature minus the mean of the calendar month", fontsize=15)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)

    # The map. Red and blue can be told apart by colour-blind people; white is 0; land is grey.
    limit = max(0.5, np.ceil(2 * np.ma.abs(field).max()) / 2)
    left.set_facecolor("0.75")
    picture = left.pcolormesh(
        longitude, latitude, field, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest"
    )
    left.set_title(f"{month} (land grey, latitude stretched)")
    left.set_xticks(range(0, 361, 60), [degrees(x, "E", "W") for x in range(0, 361, 60)])
    left.set_xlim(0, 360)
    left.yaxis.set_major_formatter(lambda y, _: degrees(y, "N", "S"))
    left.set(xlabel="Longitude", ylabel="Latitude")
    figure.colorbar(
        picture, ax=left, orientation="horizontal", pad=0.03, aspect=40, label="Anomaly (K)"
    )

    # The time series.
    right.axhline(0, color="0.4", linewidth=0.8)
    right.plot(dates, means, color="#0072B2", marker="o", markersize=3.5)
    right.plot(dates[-1], means[-1], color="#D55E00", marker="o", markersize=8, linestyle="none")
    right.annotate(
        f"{month}: {means[-1]:+.2f} K".replace("-", "\N{MINUS SIGN}"),
        (dates[-1], means[-1]),
        xytext=(6, -12),
        textcoords="offset points",
        ha="right",
        va="top",
        color="#A84800",
    )
    right.margins(y=0.12)
    right.set_title(f"Mean over the sea, {band}, weighted by area")
    right.set_ylabel("Mean anomaly (K)")
    right.xaxis.set_major_locator(mdates.YearLocator())
    right.xaxis.set_major_formatter(mdates.DateFormatter("%Y"))
    right.grid(alpha=0.3)

    figure.savefig(output + ".part", format="png", dpi=110)
    os.replace(output + ".part", output)
    print(f"{output}: {len(paths)} months, the last {month}, mean {means[-1]:+.2f} K")


def degrees(x, plus, minus):
    """Formats an angle: 120 becomes 120°E, 240 (east) becomes 120°W."""
    x = round(float(x), 1)
    if plus == "E" and x > 180:
        x -= 360
    if x in (0, 180, -180):
        return f"{abs(x):g}°"
    return f"{abs(x):g}°{plus if x > 0 else minus}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
