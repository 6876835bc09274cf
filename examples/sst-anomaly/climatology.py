#!/usr/bin/env python3
"""Computes the mean of one calendar month over all years of the pile.

    climatology.py MONTH PILE_FOLDER OUTPUT.nc        (MONTH is 01 to 12)
"""

import glob
import os
import sys

import netCDF4
import numpy as np


def main(month, pile, output):
    paths = sorted(glob.glob(os.path.join(glob.escape(pile), f"sst-*-{month}.nc")))
    if not paths:
        sys.exit(f"climatology.py: no file sst-*-{month}.nc in {pile}")
    fields = []
    for path in paths:
        with netCDF4.Dataset(path) as one:
            fields.append(one["surface_temperature"][0])
            latitude, longitude = one["latitude"][:], one["longitude"][:]
    # Land is masked and stays masked. Sums in double precision.
    mean = np.ma.mean(np.ma.stack(fields), axis=0, dtype="f8")

    # Under another name first: no half file is ever seen.
    with netCDF4.Dataset(output + ".part", "w") as new:
        new.title = f"mean of calendar month {month} over {len(paths)} years"
        for name, values in (("latitude", latitude), ("longitude", longitude)):
            new.createDimension(name, len(values))
            new.createVariable(name, "f4", (name,))[:] = values
        variable = new.createVariable(
            "surface_temperature", "f8", ("latitude", "longitude"), fill_value=1e20
        )
        variable.units = "K"
        variable[:] = mean
    os.replace(output + ".part", output)
    print(f"{output}: mean of {len(paths)} files")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
