#!/bin/sh
# SVG drawn by librsvg:  svg.sh OUT TWEMOJI OPENCLIPART    (two folders of SVG: see README.md)
set -e
PATH=/usr/bin:$PATH
o=$1 here=$(dirname "$0")
for n in 1 2 3 4 5 6; do
    rsvg-convert "$here/svg/$n.svg" | convert - +dither -colors 64 "PNG8:$o/svg-$n.png"
done
paste_() { # FILE SIZE BACKGROUND QUALITY, then PICTURE X Y HEIGHT ...: pictures laid on a page
    file=$1 size=$2 back=$3 quality=$4; shift 4
    set -- "$@" end
    page=$(mktemp --suffix=.png)
    convert -size "$size" "xc:$back" "$page"
    while [ "$1" != end ]; do
        rsvg-convert -h "$4" -a "$1" | convert "$page" - -geometry "+$2+$3" -composite "$page"
        shift 4
    done
    case $file in
        *.png) convert "$page" +dither -colors 64 "PNG8:$o/$file" ;;
        *) convert "$page" -quality "$quality" "$o/$file" ;;
    esac
    rm "$page"
}
t=$2 c=$3
paste_ twemoji-1.png 500x300 white 0 "$t/1f431.svg" 40 70 160 "$t/1f436.svg" 300 70 160
paste_ twemoji-2.jpg 600x450 '#cfe8fc' 70 "$t/1f34c.svg" 40 40 110 "$t/1f34c.svg" 240 170 110 "$t/1f34c.svg" 430 290 110
paste_ twemoji-3.png 400x500 white 0 "$t/1f697.svg" 120 20 150 "$t/1f333.svg" 110 260 200
paste_ twemoji-4.png 480x480 white 0 "$t/1f418.svg" 110 110 260
paste_ clipart-1.jpg 600x400 white 62 "$c/food/fruit/apple.svg" 50 110 170 "$c/food/fruit/banana.svg" 350 130 130
paste_ clipart-2.jpg 400x400 white 68 "$c/animals/mammals/cartoon_cat_gerald_g._01.svg" 70 80 220
paste_ clipart-3.jpg 500x300 '#c8e6c9' 66 "$c/transportation/bus1_jarno_vasamaa_01.svg" 130 80 130
paste_ clipart-4.jpg 420x560 white 58 "$c/recreation/holiday/snowman_01.svg" 110 30 200 "$c/recreation/music/guitar_jarno_vasamaa1.svg" 150 320 210
paste_ clipart-5.png 480x480 white 0 "$c/animals/mammals/contour_elephant.svg" 70 110 240
paste_ clipart-6.jpg 640x400 '#cfe8fc' 55 "$c/food/fruit/strawberry.svg" 40 40 110 "$c/food/fruit/strawberry.svg" 260 230 110 "$c/food/fruit/pineapple.svg" 480 90 170
